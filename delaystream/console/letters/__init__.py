"""Dead letters: the latest of them, each as it stands on its topic, what is done about them, and by whom."""
