"""A web page and a REST interface that classify videos."""
