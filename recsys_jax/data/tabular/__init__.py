"""Where tables come from: files, data frames, and columns whose values come again."""
