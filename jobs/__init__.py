"""The night: configuration, ingest, training, scoring, publishing, campaigns, command line."""
