package image

import (
	"fmt"
	"os/exec"
	"path/filepath"
)

// A sample is an image that needs no telling.
type sample struct {
	program string   // in the directory of our programs, or of this machine when tool is set
	args    []string // before those of the manifest
	tool    bool
	env     []string
}

// samples are by repository, without registry and tag. Each listens where its image does.
var samples = map[string]sample{
	"kong/httpbin":         {program: "lateen-sample", args: []string{"httpbin", "--listen", ":80"}},
	"kennethreitz/httpbin": {program: "lateen-sample", args: []string{"httpbin", "--listen", ":80"}},
	"mccutchen/go-httpbin": {program: "lateen-sample", args: []string{"httpbin", "--go", "--listen", ":8080"}},

	"curlimages/curl":              {program: "curl", tool: true},
	"istio/tcp-echo-server":        {program: "lateen-sample", args: []string{"tcp-echo"}},
	"istio/examples-helloworld-v1": {program: "lateen-sample", args: []string{"helloworld", "--listen", ":5000"}, env: []string{"SERVICE_VERSION=v1"}},
	"istio/examples-helloworld-v2": {program: "lateen-sample", args: []string{"helloworld", "--listen", ":5000"}, env: []string{"SERVICE_VERSION=v2"}},

	"busybox": {program: "sh", tool: true},
	"alpine":  {program: "sh", tool: true},
	"debian":  {program: "sh", tool: true},
	"ubuntu":  {program: "sh", tool: true},

	"istio/proxyv2": {program: "pilot-agent"},
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
	program := s.program
	if !s.tool {
		program = filepath.Join(c.o.Bin, s.program)
		if _, err := exec.LookPath(program); err != nil {
			return Image{}, fmt.Errorf("image %s stands for %s here: %w: build all programs into one directory: make build", name, s.program, err)
		}
	}
	return Image{ID: "sample:" + repository(name), Entrypoint: append([]string{program}, s.args...), Env: s.env, UID: -1, GID: -1}, nil
}
