#!/usr/bin/env python3
"""A tiny store of every released format (tests/stores/vN) still answers, or is refused with the
command that helps. tools/make_store_fixture makes them."""

import glob
import json
import os
import shutil

import harness

STORES = os.path.join(harness.SOURCE, "tests/stores")
VERSIONS = sorted(int(os.path.basename(path)[1:]) for path in glob.glob(STORES + "/v*"))
UNKNOWN = 4711


def read_json(path):
    with open(path, encoding="utf-8") as file:
        return json.load(file)


class StoreVersions(harness.E2eTest):
    def open_store(self, version, **options):
        """A daemon with a copy of that store, and what the store is known to answer."""
        source = os.path.join(STORES, f"v{version}")
        store = self.path(f"store{version}")
        shutil.copytree(os.path.join(source, "models"), os.path.join(store, "models"))
        daemon = self.daemon(start=False, store=store, name=f"s{version}", ram="4M", kv="4M",
                             **options)
        return daemon, read_json(os.path.join(source, "answer.json"))

    @staticmethod
    def ask(daemon, known):
        return daemon.client("ask", "-m", known["model"], "--json", "--ignore-eos",
                             "-n", len(known["token_ids"]),
                             "--prompt-ids", ",".join(map(str, known["prompt_ids"])))

    def test_the_newest_answers_on_every_cpu_path(self):
        for path in ("scalar", None):
            self.folder = os.path.join(self.home, str(path))
            os.mkdir(self.folder)
            daemon, known = self.open_store(VERSIONS[-1],
                                            env={"AIRLLM_CPU": path} if path else None)
            daemon.start()
            self.assertEqual(self.ok(self.ask(daemon, known)).json["token_ids"],
                             known["token_ids"])
            self.ok(daemon.client("verify", known["model"]))

    def test_the_newest_is_the_one_that_is_written(self):
        daemon = self.daemon()
        self.split(daemon, harness.DEMO, "demo")
        manifest = read_json(os.path.join(daemon.store, "models/demo/manifest.json"))
        self.assertEqual(manifest["version"], VERSIONS[-1],
                         "make and commit a store of this format: tools/make_store_fixture")

    def test_older_ones_answer_or_name_a_command(self):
        for version in VERSIONS[:-1]:
            with self.subTest(version):
                daemon, known = self.open_store(version)
                daemon.start()
                result = self.ask(daemon, known)
                if result.status == 0:
                    self.assertEqual(result.json["token_ids"], known["token_ids"])
                else:
                    self.assert_names_the_way_out(result, version, known["model"])

    def test_an_unknown_version_is_refused_with_the_way_out(self):
        daemon, known = self.open_store(VERSIONS[-1])
        manifest = os.path.join(daemon.store, "models", known["model"], "manifest.json")
        changed = read_json(manifest)
        changed["version"] = UNKNOWN
        with open(manifest, "w", encoding="utf-8") as file:
            json.dump(changed, file)
        daemon.start()
        self.assert_names_the_way_out(self.ask(daemon, known), UNKNOWN, known["model"])
        # What it says can be done.
        self.ok(daemon.client("rm", "--yes", known["model"]))
        self.split(daemon, harness.DEMO, known["model"])
        self.assert_lives(daemon)

    def assert_names_the_way_out(self, result, version, model):
        self.assertEqual(result.status, 65, result)
        error = result.json["error"]
        self.assertIn(f"version {version}", error["message"])
        self.assertIn(f"airllm rm {model} && airllm split DIR --name {model}", error["remedy"])


if __name__ == "__main__":
    harness.main()
