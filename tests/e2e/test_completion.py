#!/usr/bin/env python3
"""Completion of command lines, in the shells that are here, with the scripts that airllm prints."""

import os
import pty
import re
import select
import shutil
import stat
import subprocess
import time
import unittest

import harness

SHELLS = ("bash", "zsh", "fish")


def needs_shell(name):
    return unittest.skipUnless(shutil.which(name), f"{name} is not installed")


def airllm(*arguments):
    return subprocess.run([harness.AIRLLM, *arguments], stdout=subprocess.PIPE, check=True,
                          text=True).stdout


def commands():
    """The names in the list of commands of the help."""
    listed = airllm("--help").split("Commands:\n")[1].split("\n\n")[0]
    return [line.split()[0] for line in listed.splitlines()]


def options_in_help(*command):
    """All names of options in the help, which CLI11 lays out in a column of its own."""
    names = set()
    for line in airllm(*command, "--help").splitlines():
        column = re.match(r"  (-\S+)", line)
        if column:
            names.update(re.split(r"[,\s]+", column.group(1)))
    return names


class CompletionTest(harness.SharedDaemonTest):
    """A daemon with the model `demo`, and the scripts as files in self.folder."""

    def setUp(self):
        super().setUp()
        for shell, name in zip(SHELLS, ("airllm.bash", "_airllm", "airllm.fish")):
            with open(self.path(name), "w", encoding="utf-8") as file:
                file.write(airllm("completion", shell))
        os.mkdir(self.path("deep folder"))
        with open(self.path("deep file"), "wb"):
            pass
        self.env = harness.environment(self.home, {
            "PATH": harness.BIN + ":" + os.environ["PATH"], "AIRLLM_SOCKET": self.shared.socket,
            "ZDOTDIR": self.folder})

    def program(self, text):
        """A program called airllm, before the real one."""
        folder = self.path("before")
        os.makedirs(folder, exist_ok=True)
        path = os.path.join(folder, "airllm")
        with open(path, "w", encoding="utf-8") as file:
            file.write("#!/bin/sh\n" + text)
        os.chmod(path, stat.S_IRWXU)
        self.env["PATH"] = folder + ":" + self.env["PATH"]

    def run_shell(self, *command):
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=self.env,
                              cwd=self.folder, check=True, text=True, timeout=60)
        self.assertEqual(done.stderr, "")
        return done.stdout.splitlines()


class Terminal:
    """An interactive shell on a terminal, with a key (^T) that shows and empties the line."""

    def __init__(self, argv, env, folder):
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.chdir(folder)
            os.execvpe(argv[0], argv, env)
        self.text = ""

    def close(self):
        os.close(self.master)
        os.waitpid(self.pid, 0)

    def until(self, pattern, seconds=30):
        end = time.monotonic() + seconds * harness.SLOWNESS
        while True:
            found = re.search(pattern, self.text, re.S)
            if found:
                self.text = self.text[found.end():]
                return found
            ready = select.select([self.master], [], [], max(0, end - time.monotonic()))[0]
            if not ready:
                raise AssertionError(f"{pattern!r} did not appear in {self.text!r}")
            self.text += os.read(self.master, 4096).decode("utf-8", "replace")

    def complete(self, line):
        """The line as it is after TAB."""
        os.write(self.master, line.encode() + b"\t\x14")
        return self.until(r"<<(.*?)>>").group(1)


@needs_shell("bash")
class BashCompletion(CompletionTest):
    def reply(self, *words):
        """COMPREPLY for `airllm WORDS...` with the cursor at the end of the last one."""
        script = ('. ./airllm.bash; COMP_WORDS=(airllm "$@"); COMP_CWORD=$#; _airllm airllm;'
                  ' printf "%s\\n" "${COMPREPLY[@]}"')
        lines = self.run_shell("bash", "--norc", "-c", script, "bash", *words)
        return [line for line in lines if line]

    def test_commands(self):
        self.assertEqual(set(self.reply("")), set(commands()) | {"help"})
        self.assertEqual(self.reply("spl"), ["split"])
        self.assertEqual(self.reply("help", "spl"), ["split"])
        self.assertEqual(self.reply("--socket", "x", "--spawn", "spl"), ["split"])
        self.assertEqual(self.reply("nonsense", ""), [])

    def test_options_are_those_of_the_help(self):
        self.assertEqual(set(self.reply("-")), options_in_help())
        for command in commands():
            with self.subTest(command):
                self.assertEqual(set(self.reply(command, "-")), options_in_help(command))
        self.assertEqual(self.reply("ask", "--max"), ["--max-tokens"])
        self.assertEqual(self.reply("ask", "--", "--max"), [])

    def test_models(self):
        for words in (["ask", "-m", ""], ["ask", "--model", "de"], ["ask", "--model", "="],
                      ["ask", "--model", "=", "de"], ["show", ""], ["rm", "x", "d"],
                      ["--json", "verify", "demo"], ["ask", "hi", "-n", "3", "-m", ""]):
            with self.subTest(words):
                self.assertEqual(self.reply(*words), ["demo"])
        for words in (["ask", ""], ["ask", "-m", "x"], ["show", "demo", ""], ["ask", "-n", ""],
                      ["show", "--socket", "/nowhere", ""]):
            with self.subTest(words):
                self.assertEqual(self.reply(*words), [])

    def test_a_bench_is_named_before_its_model(self):
        self.assertEqual(self.reply("bench", ""), ["stream", "kernels"])
        self.assertEqual(self.reply("bench", "k"), ["kernels"])
        self.assertEqual(self.reply("bench", "--sweeps", "3", "st"), ["stream"])
        self.assertEqual(self.reply("bench", "stream", ""), ["demo"])
        self.assertEqual(self.reply("bench", "stream", "demo", ""), [])

    def test_the_socket_of_the_line_counts(self):
        self.env["AIRLLM_SOCKET"] = "/nowhere"
        self.assertEqual(self.reply("show", ""), [])
        for words in (["--socket", self.shared.socket, "show"],
                      ["show", "--socket", "=", self.shared.socket]):
            self.assertEqual(self.reply(*words, ""), ["demo"])

    def test_files_and_folders(self):
        self.assertEqual(self.reply("split", "deep"), ["deep folder"])
        self.assertEqual(set(self.reply("--socket", "deep")), {"deep folder", "deep file"})
        self.assertEqual(self.reply("list", "--store", "deep"), ["deep folder"])

    def test_jobs(self):
        self.program("printf 'JOB KIND\\n7 generate\\n12 split\\nx y\\n'")
        self.assertEqual(self.reply("cancel", ""), ["7", "12"])
        self.assertEqual(self.reply("cancel", "7", "1"), ["12"])

    def test_names_that_are_not_plain_are_left_out_and_nothing_is_run(self):
        self.program(r"""printf '%s\n' 'NAME' '$(touch${IFS}ran) 1' '`touch ran` 2' 'a;b' 'ok 3' '*'
                     """)
        self.assertEqual(self.reply("show", ""), ["ok"])
        self.assertEqual(self.reply("--socket", "$(touch ran)", "show", "`touch ran`"), [])
        self.assertFalse(os.path.exists(self.path("ran")))

    def test_interactive(self):
        with open(self.path("rc"), "w", encoding="utf-8") as file:
            file.write('. ./airllm.bash\nshow() { echo "<<$READLINE_LINE>>"; READLINE_LINE=; }\n'
                       "bind -x '\"\\C-t\": show'\nPS1=ready; set +o history\n")
        shell = Terminal(["bash", "--rcfile", "rc", "-i"], self.env, self.folder)
        self.addCleanup(shell.close)
        shell.until("ready")
        self.assertEqual(shell.complete("airllm sta"), "airllm status ")
        self.assertEqual(shell.complete("airllm ask --model=d"), "airllm ask --model=demo ")
        self.assertEqual(shell.complete("airllm ask hi --max"), "airllm ask hi --max-tokens ")
        self.assertEqual(shell.complete("airllm split dee"), "airllm split deep\\ folder/")


@needs_shell("zsh")
class ZshCompletion(CompletionTest):
    def setUp(self):
        super().setUp()
        with open(self.path(".zshrc"), "w", encoding="utf-8") as file:
            file.write("fpath=($ZDOTDIR $fpath); autoload -Uz compinit; compinit -u -D\n"
                       "show() { print -r -- \"<<$BUFFER>>\"; BUFFER= }; zle -N show\n"
                       "bindkey '^T' show; unsetopt beep; PS1=ready\n")
        self.shell = Terminal(["zsh", "-i"], self.env, self.folder)
        self.addCleanup(self.shell.close)
        self.shell.until("ready")

    def test_commands_and_options(self):
        for line, completed in (("airllm sta", "airllm status "),
                                ("airllm --js", "airllm --json "),
                                ("airllm help spl", "airllm help split "),
                                ("airllm ask hi --max", "airllm ask hi --max-tokens="),
                                ("airllm --json ask --ign", "airllm --json ask --ignore-eos "),
                                ("airllm list --ign", "airllm list --ign")):
            self.assertEqual(self.shell.complete(line), completed)

    def test_values(self):
        for line, completed in (("airllm ask -m ", "airllm ask -m demo "),
                                ("airllm ask --model=d", "airllm ask --model=demo "),
                                ("airllm show d", "airllm show demo "),
                                ("airllm rm x d", "airllm rm x demo "),
                                ("airllm bench st", "airllm bench stream "),
                                ("airllm bench stream d", "airllm bench stream demo "),
                                ("airllm split dee", "airllm split deep\\ folder/"),
                                ("airllm --socket=/nowhere show d",
                                 "airllm --socket=/nowhere show d")):
            self.assertEqual(self.shell.complete(line), completed)

    def test_every_command_completes_without_a_message(self):
        for command in commands():
            self.assertEqual(self.shell.complete(f"airllm {command} --js"),
                             f"airllm {command} --json ")
        self.assertNotIn("_arguments:", self.shell.text)


@needs_shell("fish")
class FishCompletion(CompletionTest):
    def candidates(self, line):
        lines = self.run_shell("fish", "--no-config", "-c",
                               "source airllm.fish; complete -C $argv[1]", line)
        return [line.split("\t")[0] for line in lines]

    def test_commands_and_options(self):
        self.assertEqual(set(self.candidates("airllm ")), set(commands()) | {"help"})
        self.assertEqual(self.candidates("airllm --spawn spl"), ["split"])
        self.assertEqual(self.candidates("airllm help spl"), ["split"])
        for command in commands():
            with self.subTest(command):
                long_names = {name for name in options_in_help(command) if name.startswith("--")}
                self.assertEqual(set(self.candidates(f"airllm {command} --")), long_names)

    def test_values(self):
        self.assertEqual(self.candidates("airllm ask -m "), ["demo"])
        self.assertEqual(self.candidates("airllm ask --model=d"), ["--model=demo"])
        self.assertEqual(self.candidates("airllm --socket /nowhere show "), [])
        self.assertEqual(self.candidates("airllm show d"), ["demo"])
        self.assertEqual(self.candidates("airllm bench "), ["kernels", "stream"])
        self.assertEqual(self.candidates("airllm bench stream "), ["demo"])
        self.assertEqual(self.candidates("airllm split dee"), ["deep folder/"])


class CompletionScripts(unittest.TestCase):
    def test_another_shell_is_refused_by_name(self):
        done = subprocess.run([harness.AIRLLM, "completion", "tcsh"], stderr=subprocess.PIPE,
                              check=False, text=True)
        self.assertEqual(done.returncode, 64)
        self.assertIn("tcsh", done.stderr)
        self.assertIn("bash, zsh, fish", done.stderr)


if __name__ == "__main__":
    harness.main()
