"""What holds of the source as a whole: who may import whom, and how big things get."""
