"""The studies behind the numbers of the documentation, one subcommand each.

    python scripts/studies                        # the list
    python scripts/studies coverage-rows 1        # run one; --help names its arguments
    python scripts/studies tables                 # write the tables of docs/studies/coverage.md from the kept results
    python scripts/studies tables --check         # end with 1 if a table is not that of the kept results

A study with ``--keep`` writes what it found to ``docs/studies/results``, from where the tables are made.
"""

from __future__ import annotations

import importlib
import sys

STUDIES = {
    "coverage-rows": "coverage of the Gaussian toys, rows of the first table",
    "other-problems": "coverage on problems that no default was chosen with",
    "few-data": "coverage with 20 and 50 data events",
    "acceptance-coverage": "coverage with misses and fakes",
    "binned-coverage": "coverage of the binned methods",
    "other-designs": "coverage of designs that are not used",
    "common-fluctuation": "how the seeds of a row treat IBU, whose covariance is known",
    "iterations": "coverage after each iteration and for each limit",
    "network-noise": "how much the start of the training moves the result",
    "refits": "members against a loop that is trained again",
    "event-posterior": "particle level of each event, against closed forms and held-out events",
    "adversarial-toys": "the Gaussian toys of adversarial unfolding",
    "moment-unfolding": "mean and variance of a Gaussian toy whose best possible errors are known",
    "goodness": "p-values of goodness of fit where the answer is right",
    "nuisance-toys": "nuisance parameters that data constrain",
    "systematic-toys": "coverage where efficiencies, scales and backgrounds decide",
    "usual-practice": "coverage of the bands beside that of error bars that are often drawn",
    "zjets-bias": "seven observables: bias at the result",
    "zjets-nature": "seven observables of the second sample beside IBU by its iterations",
    "zjets-toys": "seven observables: coverage when the response is right",
    "tables": "write or check the tables of the documentation",
}


def main(arguments: list[str]) -> int:
    """Run a study."""
    if not arguments or arguments[0] not in STUDIES:
        print(__doc__)
        print("\n".join(f"  {name:20} {meaning}" for name, meaning in STUDIES.items()))
        return 0 if not arguments or arguments[0] in ("-h", "--help") else 2
    sys.argv = [f"python scripts/studies {arguments[0]}", *arguments[1:]]
    return importlib.import_module(arguments[0].replace("-", "_")).main() or 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
