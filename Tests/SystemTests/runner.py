"""Runs the tests one after the other, and ends with 'N passed, M failed, K skipped'."""
import os
import sys
import time
import unittest

import lab


class Result(unittest.TextTestResult):
    passed = 0

    def startTest(self, test):
        self._started = time.monotonic()
        unittest.TestResult.startTest(self, test)

    def _line(self, word, test, more=""):
        seconds = time.monotonic() - self._started
        self.stream.write(f"{word:5} {seconds:5.1f} s  {test.id()}{more}\n")
        self.stream.flush()

    def addSuccess(self, test):
        unittest.TestResult.addSuccess(self, test)
        self.passed += 1
        self._line("ok", test)

    def addFailure(self, test, error):
        unittest.TestResult.addFailure(self, test, error)
        self._line("FAIL", test)

    def addError(self, test, error):
        unittest.TestResult.addError(self, test, error)
        self._line("FAIL", test)

    def addSkip(self, test, reason):
        unittest.TestResult.addSkip(self, test, reason)
        self._line("skip", test, f": {reason}")


def main():
    missing = [str(path) for path in (lab.TURNTABLE, lab.LIGHTPATH, lab.PATTERN, lab.GUESTS / "demo.cpio") if not os.path.exists(path)]
    if missing:
        sys.exit(f"system tests: not built: {', '.join(missing)} (make build guest)")
    if os.getuid() != 0:
        sys.exit("system tests: they make network namespaces (run as root)")
    loader = unittest.defaultTestLoader
    names = sys.argv[1:]
    tests = loader.loadTestsFromNames(names) if names else loader.discover(os.path.dirname(os.path.abspath(__file__)), "test_*.py")
    result = unittest.TextTestRunner(stream=sys.stdout, resultclass=Result, verbosity=0).run(tests)
    failed = len({test.id() for test, _ in result.failures + result.errors})
    print(f"{result.passed} passed, {failed} failed, {len(result.skipped)} skipped")
    sys.exit(1 if failed or not result.passed else 0)


main()
