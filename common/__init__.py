"""The lesson: what a notebook imports and a learner reads."""
