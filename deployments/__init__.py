"""What is deployed, and the sandbox that it is deployed on."""
