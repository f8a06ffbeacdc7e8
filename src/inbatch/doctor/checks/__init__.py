"""Pure checks, each a function of the `Machine` that yields `Result`s; `table.CHECKS` lists them."""
