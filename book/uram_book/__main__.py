"""Start a chapter with its runs. While PyTorch is being imported nothing has begun: Ctrl-C then ends without a word."""

import signal
import sys

signal.signal(signal.SIGINT, signal.SIG_DFL)
from uram_book.notebook import main  # noqa: E402

signal.signal(signal.SIGINT, signal.default_int_handler)
sys.exit(main())
