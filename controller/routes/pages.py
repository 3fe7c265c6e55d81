"""What the HTTP server shows: the received routes as HTML, JSON and YAML, figures for Prometheus."""
