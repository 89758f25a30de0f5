"""The count head: a product of few numbers, by one kernel each way."""
