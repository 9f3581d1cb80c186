"""The exercises of the lessons: each is a function from an answer to what is wrong with it."""
