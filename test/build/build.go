// Package build makes programs of the Kubernetes API's own module for tests of the
// packages outside of it, which cannot import it.
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
func APIServer(dir string) (string, error) { return program(dir, "lateen-apiserver", ".") }

// Kubectl builds the kubectl of the API's version, for machines that have none.
func Kubectl(dir string) (string, error) {
	return program(dir, "kubectl", "k8s.io/kubernetes/cmd/kubectl")
}

func program(dir, name, path string) (string, error) {
	module, err := module()
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

// module is the API's, in the tree that the test runs in.
func module() (string, error) {
	dir, err := os.Getwd()
	for ; err == nil && dir != "/"; dir = filepath.Dir(dir) {
		api := filepath.Join(dir, "local", "apiserver")
		if _, err := os.Stat(filepath.Join(api, "go.mod")); err == nil {
			return api, nil
		}
	}
	return "", errors.Join(err, errors.New("no local/apiserver above the working directory"))
}
