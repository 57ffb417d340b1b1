"""The transfer engine against a server that lies, stalls and breaks off."""
