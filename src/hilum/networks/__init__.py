"""Networks and the arithmetic behind them."""
