"""What is neither forward nor backward: the optimizer's update and the norm of its gradient."""
