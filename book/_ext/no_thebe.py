"""Keep thebe out of the pages.

jupyter-book always loads the sphinx-thebe extension, which is for running cells on a remote server. We have no such
server, its script names a remote address, and it is written twice into each page, which is an error on the console.
"""


def drop_thebe(app, pagename, templatename, context, doctree):
    def is_thebe(file) -> bool:
        attributes = getattr(file, "attributes", {})
        return "thebe" in str(getattr(file, "filename", file)).lower() or "THEBE_JS_URL" in str(attributes.get("body"))

    for kind in ("script_files", "css_files"):
        context[kind][:] = [file for file in context[kind] if not is_thebe(file)]


def setup(app):
    app.connect("html-page-context", drop_thebe, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
