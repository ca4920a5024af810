"""The command `course`: it executes, publishes and checks the lesson that common/ holds."""
