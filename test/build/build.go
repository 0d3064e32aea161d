// Package build makes programs of the modules that the Kubernetes API and OPA have of their
// own, for tests of the packages outside of them, which cannot import them.
package build

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// APIServer builds lateen-apiserver into a folder and returns its path. The same sources
// give the same program from Go's cache; it is linked anew each time.
func APIServer(dir string) (string, error) { return program(dir, "lateen-apiserver", api, ".") }

// Kubectl builds the kubectl of the API's version, for machines that have none.
func Kubectl(dir string) (string, error) {
	return program(dir, "kubectl", api, "k8s.io/kubernetes/cmd/kubectl")
}

// OPA builds lateen-opa into a folder.
func OPA(dir string) (string, error) { return program(dir, "lateen-opa", opa, ".") }

// The modules, in the tree.
const (
	api = "local/apiserver"
	opa = "samples/opa"
)

// program builds a package of a module.
func program(dir, name, of, path string) (string, error) {
	module, err := module(of)
	if err != nil {
		return "", err
	}
	binary := filepath.Join(dir, name)
	cmd := exec.Command("go", "build", "-C", module, "-ldflags", "-s -w", "-o", binary, path)
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build %s: %w\n%s", path, err, out)
	}
	return binary, nil
}

// module is where a module is, in the tree that the test runs in.
func module(name string) (string, error) {
	dir, err := os.Getwd()
	for ; err == nil && dir != "/"; dir = filepath.Dir(dir) {
		module := filepath.Join(dir, filepath.FromSlash(name))
		if _, err := os.Stat(filepath.Join(module, "go.mod")); err == nil {
			return module, nil
		}
	}
	return "", errors.Join(err, fmt.Errorf("no %s above the working directory", name))
}
