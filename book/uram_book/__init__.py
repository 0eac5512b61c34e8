"""What the book needs and the science does not: statistics, tables, figures, templates. `uram_lib` never imports it."""
