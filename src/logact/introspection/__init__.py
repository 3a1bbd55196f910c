"""Reading a log to understand what happened: nothing here appends or acts."""
