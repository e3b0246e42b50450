"""Several users at one daemon: whose models and jobs there are, and who may do what with them."""

import grp
import os
import shutil
import subprocess

import checkpoint
import harness
from harness import AIRLLM, needs_root

ANN, BEN, CLEO = 100001, 100002, 100003
ADMINS = next((group for group in grp.getgrall() if group.gr_gid > 0), None)


class Person:
    """Runs the client as another user."""

    def __init__(self, test, daemon, uid, groups=()):
        self.daemon = daemon
        self.program = test.client_for_all
        self.identity = {"user": uid, "group": uid, "extra_groups": list(groups)}

    def command(self, *arguments):
        return [self.program, *self.daemon.command(*arguments)[1:]]

    def client(self, *arguments):
        done = subprocess.run(
            self.command(*arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env=self.daemon.env, timeout=60 * harness.SLOWNESS,
            check=False, cwd="/", **self.identity)
        return harness.Result(done.returncode, done.stdout, done.stderr, 0)

    def spawn(self, *arguments):
        return subprocess.Popen(
            self.command(*arguments), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, env=self.daemon.env, cwd="/", **self.identity)

    def json(self, *arguments):
        result = self.client(*arguments, "--json")
        assert result.status == 0, result
        return result.json


class UsersTest(harness.E2eTest):
    """A daemon of root's that everybody may connect to."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        os.chmod(cls.home, 0o711)
        # Other users may have no way to the folder that the programs were built in.
        cls.client_for_all = shutil.copy(AIRLLM, cls.home)
        os.chmod(cls.client_for_all, 0o755)
        cls.sources = []
        for seed in (1, 2):
            cls.sources.append(os.path.join(cls.home, f"source{seed}"))
            checkpoint.write(cls.sources[-1], seed=seed)
        cls.endless = os.path.join(cls.home, "endless")
        checkpoint.write_endless(cls.endless)
        for folder, _, files in os.walk(cls.home):
            for name in files:
                if not name.startswith("airllm"):
                    os.chmod(os.path.join(folder, name), 0o644)
            if folder != cls.home:
                os.chmod(folder, 0o755)

    def setUp(self):
        super().setUp()
        os.chmod(self.folder, 0o711)

    def open_daemon(self, **options):
        daemon = self.daemon(**options)
        os.chmod(daemon.socket, 0o666)
        return daemon

    def people(self, daemon):
        return [Person(self, daemon, uid) for uid in (ANN, BEN, CLEO)]

    def refused(self, result, status, *says):
        self.assert_fails(result, status)
        for text in says:
            self.assertIn(text, result.err)
        return result


def answer(person, model):
    return person.json("ask", "-m", model, "--prompt-ids", "5,6,7", "--ignore-eos", "-n", "8")[
        "token_ids"]


@needs_root
class Models(UsersTest):
    """Private models, sharing, and whose they are."""

    def test_two_users_have_models_of_one_name(self):
        daemon = self.open_daemon()
        ann, ben, cleo = self.people(daemon)
        made = ann.json("split", self.sources[0], "--name", "m")
        self.assertIs(made["shared"], False)
        said = self.ok(ben.client("split", self.sources[1], "--name", "m"))
        self.assertIn("airllm share m", said.out)
        for person, uid in ((ann, ANN), (ben, BEN)):
            rows = person.json("list")
            self.assertEqual([(row["name"], row["owner"], row["shared"]) for row in rows],
                             [("m", str(uid), False)])
        hers, his = answer(ann, "m"), answer(ben, "m")
        self.assertNotEqual(hers, his, "the two models give the same answer")
        self.assertEqual(cleo.json("list"), [])
        # Administrators see both and can name neither.
        self.assertEqual(len(daemon.client("list", "--json").json), 2)
        self.refused(daemon.client("rm", "-y", "m"), 64, str(ANN), str(BEN))

        self.assertEqual(ann.json("share", "m")["unchanged"], False)
        self.assertEqual(ann.json("share", "m")["unchanged"], True)
        self.assertEqual(answer(cleo, "m"), hers)
        self.assertEqual(answer(ben, "m"), his, "a user's own model does not come first")
        self.refused(ben.client("share", "m"), 73, "shared model m")
        self.refused(cleo.client("rm", "-y", "m"), 77, str(ANN), "only its owner")
        self.refused(cleo.client("share", "m"), 77, "only its owner")

        # The owner outlives the daemon.
        self.assertEqual(daemon.stop(), 0)
        daemon.start()
        os.chmod(daemon.socket, 0o666)
        self.refused(cleo.client("rm", "-y", "m"), 77, str(ANN))
        self.assertEqual(answer(ben, "m"), his)
        self.ok(ben.client("rm", "-y", "m"))
        self.assertEqual(answer(ben, "m"), hers)
        self.refused(ben.client("rm", "-y", "m"), 77, str(ANN))
        self.ok(ann.client("rm", "-y", "m"))
        self.assertEqual(daemon.client("list", "--json").json, [])

    def test_what_is_private_is_as_if_it_were_not_there(self):
        daemon = self.open_daemon()
        ann, ben, _ = self.people(daemon)
        ann.json("split", self.sources[0], "--name", "secret")
        for command in (("show",), ("verify",), ("rm", "-y"), ("share",), ("ask", "x", "-m")):
            hidden = self.refused(ben.client(*command, "secret"), 66)
            unknown = self.refused(ben.client(*command, "nosuch"), 66)
            self.assertEqual(hidden.err.replace("secret", "nosuch"), unknown.err)
        answer(ann, "secret")
        self.assertIn("secret", ann.client("status", "--json").out)
        self.assertNotIn("secret", ben.client("status", "--json").out)
        self.assertIn("secret", daemon.client("status", "--json").out)
        self.assertEqual(ann.json("show", "secret")["owner"], str(ANN))
        self.refused(ben.client("default", "--daemon", "secret"), 77, "only administrators")
        self.refused(daemon.client("default", "--daemon", "secret"), 64, "private")

    def test_roots_models_are_shared_and_a_split_may_share_at_once(self):
        daemon = self.open_daemon()
        ann, ben, _ = self.people(daemon)
        self.assertIs(daemon.client("split", self.sources[0], "--name", "roots",
                                    "--json").json["shared"], True)
        self.assertTrue(os.path.exists(os.path.join(daemon.store, "models/roots/manifest.json")))
        self.refused(ann.client("rm", "-y", "roots"), 77, "only its owner")
        self.assertIs(ann.json("split", self.sources[1], "--name", "hers", "--share")["shared"],
                      True)
        rows = {row["name"]: row for row in ben.json("list")}
        self.assertEqual(rows["hers"]["owner"], str(ANN))
        self.assertEqual(rows["roots"]["owner"], "root")
        # Once more changes nothing; a name that is taken is refused before the work.
        self.assertIs(ann.json("split", self.sources[1], "--name", "hers", "--share")["unchanged"],
                      True)
        self.refused(ben.client("split", self.sources[1], "--name", "roots", "--share"), 73, "root")
        self.assertEqual(os.listdir(os.path.join(daemon.store, "users")), [str(ANN)])


@needs_root
class Jobs(UsersTest):
    """What users see of each other's jobs."""

    def test_ps_hides_and_cancel_is_refused(self):
        daemon = self.open_daemon()
        ann, ben, _ = self.people(daemon)
        ann.json("split", self.endless, "--name", "mine")
        running = ann.spawn("ask", "-m", "mine", "--prompt-ids", "5,6,7", "--ignore-eos")
        self.addCleanup(running.communicate)
        self.addCleanup(running.kill)
        running.stdout.read(1)
        (row,) = ann.json("ps")
        self.assertEqual((row["user"], row["model"], row["prompt_tokens"]), (str(ANN), "mine", 3))
        (hidden,) = ben.json("ps")
        self.assertEqual(sorted(hidden), ["age_seconds", "job", "kind", "state", "user"])
        self.assertEqual((hidden["job"], hidden["user"]), (row["job"], str(ANN)))
        self.assertNotIn("mine", ben.client("ps").out)
        self.assertEqual(daemon.jobs()[0]["model"], "mine")
        self.refused(ben.client("cancel", row["job"]), 77, "only that user")
        # A model that is being asked stays where it is.
        self.refused(ann.client("share", "mine"), 75, "in use")
        self.refused(ann.client("rm", "-y", "mine"), 75, "in use")
        self.refused(daemon.client("stop", "mine"), 75, f"job {row['job']} of user {ANN}")
        self.refused(ben.client("stop", "mine"), 66)
        self.ok(daemon.client("cancel", row["job"]))
        running.communicate(timeout=20 * harness.SLOWNESS)
        self.assertEqual(running.returncode, 130)


@needs_root
class Settings(UsersTest):
    """admin-group and store-quota."""

    def test_a_supplementary_group_makes_an_administrator(self):
        daemon = self.open_daemon(admin_group=ADMINS.gr_name)
        ann, ben, _ = self.people(daemon)
        admin = Person(self, daemon, CLEO, groups=[ADMINS.gr_gid])
        ann.json("split", self.sources[0], "--name", "hers")
        self.assertEqual(ben.json("list"), [])
        self.assertEqual(admin.json("list")[0]["owner"], str(ANN))
        self.assertEqual(admin.json("verify", "hers")["ok"], True)
        self.refused(admin.client("ask", "-m", "hers", "x"), 66)
        self.assertEqual(admin.json("share", "hers")["owner"], str(ANN))
        self.refused(ben.client("rm", "-y", "hers"), 77, "only its owner")
        self.ok(admin.client("rm", "-y", "hers"))

    def test_a_group_that_is_not_there_is_a_wrong_setting(self):
        daemon = self.daemon(start=False, admin_group="no-such-group").launch()
        self.assertEqual(daemon.process.wait(20 * harness.SLOWNESS), 78)
        self.assertIn("no-such-group", daemon.log)
        self.assertIn("admin-group", daemon.log)

    def test_a_split_beyond_the_quota_is_refused_before_it_writes(self):
        probe = self.open_daemon(name="probe", store=self.path("probe-store"))
        size = probe.client("split", self.sources[0], "--json").json["bytes"]
        daemon = self.open_daemon(store_quota=size * 3 // 2)
        ann, ben, _ = self.people(daemon)
        ann.json("split", self.sources[0], "--name", "first", "--share")
        refused = ann.client("split", self.sources[1], "--name", "second")
        self.refused(refused, 73, "store-quota", "airllm rm")
        self.assertFalse(os.path.exists(os.path.join(daemon.store, f"users/{ANN}/incoming/second")))
        ben.json("split", self.sources[1], "--name", "second")
        for name in ("a", "b"):
            self.split(daemon, self.sources[0], name)
        self.ok(ann.client("rm", "-y", "first"))
        ann.json("split", self.sources[1], "--name", "second")


if __name__ == "__main__":
    harness.main()
