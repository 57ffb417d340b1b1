"""How the embedded checkpoint was trained; run `python assets/training/phi_3_nano.py --help`."""
