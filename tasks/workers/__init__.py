"""Workers: processes that take runs from queues and start them."""
