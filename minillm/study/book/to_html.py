def write_html(book, folder): pass
