def render_page(reports: object) -> str:
    raise NotImplementedError
