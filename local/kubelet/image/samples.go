package image

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
)

// A sample is an image that needs no telling.
type sample struct {
	entrypoint []string // a manifest's command replaces it; one of our programs is found where they are
	args       []string // a manifest's args replace them
	env        []string
}

// ours are the programs that are looked for in the directory of our programs.
const (
	samplePrograms = "lateen-sample"
	agentProgram   = "pilot-agent"
)

// curlOrCommand runs a program of this machine, or curl with options and addresses.
const curlOrCommand = `case $1 in -*) exec curl "$@";; esac; command -v "$1" >/dev/null && exec "$@"; exec curl "$@"`

// samples are by repository, without registry and tag. Each listens where its image does;
// the small systems run what they are told, with the programs of this machine.
var samples = map[string]sample{
	"kong/httpbin":         {entrypoint: []string{samplePrograms, "httpbin", "--listen", ":80"}},
	"kennethreitz/httpbin": {entrypoint: []string{samplePrograms, "httpbin", "--listen", ":80"}},
	"mccutchen/go-httpbin": {entrypoint: []string{samplePrograms, "httpbin", "--go", "--listen", ":8080"}},

	"istio/tcp-echo-server":        {entrypoint: []string{samplePrograms, "tcp-echo"}},
	"istio/examples-helloworld-v1": {entrypoint: []string{samplePrograms, "helloworld", "--listen", ":5000"}, env: []string{"SERVICE_VERSION=v1"}},
	"istio/examples-helloworld-v2": {entrypoint: []string{samplePrograms, "helloworld", "--listen", ":5000"}, env: []string{"SERVICE_VERSION=v2"}},

	"curlimages/curl": {entrypoint: []string{"sh", "-c", curlOrCommand, "curl"}, args: []string{"--help"}},
	"busybox":         {args: []string{"sh"}},
	"alpine":          {args: []string{"sh"}},
	"debian":          {args: []string{"bash"}},
	"ubuntu":          {args: []string{"bash"}},

	"istio/proxyv2": {entrypoint: []string{agentProgram}},
}

// sample is one built in, by its repository or, for the proxy, by the last part of its name: it
// comes from many registries.
func (c *Catalog) sample(name string) (Image, error) {
	s, ok := samples[repository(name)]
	if !ok && lastPart(name) == "proxyv2" {
		s, ok = samples["istio/proxyv2"]
	}
	if !ok {
		return Image{}, &UnknownError{name}
	}
	i := Image{ID: "sample:" + repository(name), Entrypoint: slices.Clone(s.entrypoint), Args: s.args, Env: s.env, UID: -1, GID: -1}
	if len(s.entrypoint) == 0 || s.entrypoint[0] != samplePrograms && s.entrypoint[0] != agentProgram {
		return i, nil
	}
	i.Entrypoint[0] = filepath.Join(c.o.Bin, s.entrypoint[0])
	if _, err := exec.LookPath(i.Entrypoint[0]); err != nil {
		return Image{}, fmt.Errorf("image %s stands for %s here: %w: build all programs into one directory: make build", name, s.entrypoint[0], err)
	}
	return i, nil
}
