"""What nightrank is measured by, on public data, beside others."""
