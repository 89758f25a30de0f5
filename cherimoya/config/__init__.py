"""What can be configured: types, ranges and checks. Values live in conf/*.yaml."""
