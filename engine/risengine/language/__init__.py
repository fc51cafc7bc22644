"""Reading an expression: its target, attributes, places, sizes and relations."""
