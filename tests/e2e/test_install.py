"""What `cmake --install` and `cpack -G DEB` give: a program compiled with pkg-config against it runs."""
import glob
import os
import shutil
import subprocess
import unittest

from common import BUILD, SANITIZED, SOURCE, Case, main

PROGRAM = r"""
#include <sllm.h>
#include <sllm_hub.h>
#include <stdio.h>
int main(void) {
    sllm_error error;
    sllm_model *model = NULL;
    printf("%s %s\n", sllm_version(), sllm_status_name(sllm_model_load("/nonexistent", NULL, &model, &error)));
    return 0;
}
"""


def command(*arguments, **options):
    return subprocess.run(arguments, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300,
                          **options).stdout


@unittest.skipIf(SANITIZED, "a sanitized library is not one to install")
class Install(Case):
    def setUp(self):
        super().setUp()
        self.stage = self.path("stage")

    def pkg_config(self, *flags):
        env = dict(os.environ, PKG_CONFIG_PATH=os.path.join(self.stage, "lib", "pkgconfig"))
        return command("pkg-config", *flags, env=env).split()

    def compile_and_run(self, *libraries):
        source, program = self.write("program.c", PROGRAM), self.path("program")
        command("cc", "-std=c17", "-Wall", "-Wextra", "-Werror", *self.pkg_config("--cflags", "sllm"), source, "-o", program,
                *libraries)
        return command(program, env=dict(os.environ, LD_LIBRARY_PATH=os.path.join(self.stage, "lib")))

    def test_install_and_compile(self):
        command("cmake", "--install", BUILD, "--prefix", self.stage)
        for file in ("bin/sllm", "lib/libsllm.a", "lib/libsllm.so", "include/sllm.h", "include/sllm_hub.h",
                     "lib/pkgconfig/sllm.pc", "share/man/man1/sllm.1", "share/doc/sllm/copyright"):
            self.assertTrue(os.path.exists(os.path.join(self.stage, file)), file)
        version = command(os.path.join(self.stage, "bin", "sllm"), "--version").split()[1]
        shared = self.compile_and_run(*self.pkg_config("--libs", "sllm"))
        self.assertTrue(shared.startswith(version + " "), shared)
        needed = self.pkg_config("--libs", *self.pkg_config("--print-requires-private", "sllm"))
        archive = os.path.join(self.stage, "lib", "libsllm.a")
        self.assertEqual(self.compile_and_run(archive, *needed, "-lm", "-lpthread"), shared)

    def test_the_library_exports_the_public_names_only(self):
        names = [line.split()[-1].split("@")[0] for line in
                 command("nm", "-D", "--defined-only", os.path.join(BUILD, "libsllm.so")).splitlines()]
        self.assertIn("sllm_generate", names)
        self.assertEqual([name for name in names if not name.startswith("sllm_")], [])

    def test_every_public_function_is_there(self):
        names = set(command("nm", "-D", "--defined-only", os.path.join(BUILD, "libsllm.so")).split())
        for header in ("sllm.h", "sllm_hub.h"):
            with open(os.path.join(SOURCE, "include", header), encoding="utf-8") as file:
                declared = [part.split("(")[0].split()[-1].lstrip("*") for part in file.read().split("SLLM_API ")[1:]
                            if "(" in part.split(";")[0]]
            declared = [name for name in declared if name.startswith("sllm_")]
            self.assertGreater(len(declared), 5)
            self.assertEqual([name for name in declared if name not in names], [])

    def test_debian_package(self):
        if not shutil.which("dpkg-deb") or not shutil.which("dpkg-shlibdeps"):
            self.skipTest("no dpkg-dev here")
        command("cpack", "-G", "DEB", "-B", self.path("deb"), cwd=BUILD)
        package = glob.glob(self.path("deb/*.deb"))[0]
        fields = command("dpkg-deb", "-f", package)
        self.assertRegex(fields, r"(?m)^Package: sllm$")
        self.assertRegex(fields, r"(?m)^Depends: .*libc6.*")
        self.assertRegex(fields, r"(?m)^Depends: .*libcurl4.*")
        content = command("dpkg-deb", "-c", package)
        for file in ("./usr/bin/sllm", "./usr/lib/libsllm.so", "./usr/include/sllm.h", "./usr/share/man/man1/sllm.1"):
            self.assertIn(file, content)


if __name__ == "__main__":
    main()
