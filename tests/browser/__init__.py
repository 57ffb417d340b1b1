"""The web pages in headless Chromium: `pages` drives them, for tests and for screenshots."""
