"""Reports as files, tables, pages and plots."""
