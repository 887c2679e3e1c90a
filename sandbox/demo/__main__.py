"""`python -m sandbox.demo up|drill|down`."""

from sandbox.demo.demo import main

main()
