package image

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// A sample is an image that needs no telling.
type sample struct {
	entrypoint []string // a manifest's command replaces it; one of our programs is found where they are
	args       []string // a manifest's args replace them
	env        []string
	uid        int // 0 is whom the pod says
}

// ours are the programs that are looked for in the directory of our programs.
const (
	samplePrograms = "lateen-sample"
	opaProgram     = "lateen-opa"
	agentProgram   = "pilot-agent"
	controlProgram = "istiod"
)

// curlOrCommand runs a program of this machine, or curl with options and addresses.
const curlOrCommand = `case $1 in -*) exec curl "$@";; esac; command -v "$1" >/dev/null && exec "$@"; exec curl "$@"`

// samples are by repository, without registry and tag. Each listens where its image does;
// the small systems run what they are told, with the programs of this machine.
var samples = map[string]sample{
	"kong/httpbin":         {entrypoint: []string{samplePrograms, "httpbin", "--image", "--listen", ":80"}},
	"kennethreitz/httpbin": {entrypoint: []string{samplePrograms, "httpbin", "--image", "--listen", ":80"}},
	"mccutchen/go-httpbin": {entrypoint: []string{samplePrograms, "httpbin", "--go", "--listen", ":8080"}},

	"openpolicyagent/opa": {entrypoint: []string{opaProgram}, args: []string{"run"}},

	"testing/ext-authz":            extAuthz,
	"istio-testing/ext-authz":      extAuthz,
	"istio/tcp-echo-server":        {entrypoint: []string{samplePrograms, "tcp-echo"}},
	"istio/examples-helloworld-v1": {entrypoint: []string{samplePrograms, "helloworld", "--listen", ":5000"}, env: []string{"SERVICE_VERSION=v1"}},
	"istio/examples-helloworld-v2": {entrypoint: []string{samplePrograms, "helloworld", "--listen", ":5000"}, env: []string{"SERVICE_VERSION=v2"}},

	"istio/examples-bookinfo-productpage-v1": {entrypoint: bookinfo("productpage")},
	"istio/examples-bookinfo-details-v1":     {entrypoint: bookinfo("details")},
	"istio/examples-bookinfo-details-v2":     {entrypoint: bookinfo("details"), env: []string{"ENABLE_EXTERNAL_BOOK_SERVICE=true"}},
	"istio/examples-bookinfo-ratings-v1":     {entrypoint: bookinfo("ratings")},
	"istio/examples-bookinfo-reviews-v1":     {entrypoint: bookinfo("reviews"), env: []string{"SERVICE_VERSION=v1", "ENABLE_RATINGS=false"}},
	"istio/examples-bookinfo-reviews-v2":     {entrypoint: bookinfo("reviews"), env: []string{"SERVICE_VERSION=v2", "ENABLE_RATINGS=true", "STAR_COLOR=black"}},
	"istio/examples-bookinfo-reviews-v3":     {entrypoint: bookinfo("reviews"), env: []string{"SERVICE_VERSION=v3", "ENABLE_RATINGS=true", "STAR_COLOR=red"}},

	"curlimages/curl": {entrypoint: []string{"sh", "-c", curlOrCommand, "curl"}, args: []string{"--help"}},
	"busybox":         {args: []string{"sh"}},
	"alpine":          {args: []string{"sh"}},
	"debian":          {args: []string{"bash"}},
	"ubuntu":          {args: []string{"bash"}},

	"istio/proxyv2": {entrypoint: []string{agentProgram}},
	"istio/pilot":   {entrypoint: []string{controlProgram}, uid: meshUser},
}

// extAuthz listens for HTTP and for gRPC, as its image does.
var extAuthz = sample{entrypoint: []string{samplePrograms, "ext-authz", "--listen", ":8000,:9000"}}

// meshUser is the user of the control plane's image, as in the original's.
const meshUser = 1337

// IsProxy reports whether a name is that of an image with the mesh's proxy: it comes from many
// registries.
func IsProxy(name string) bool { return lastPart(name) == "proxyv2" }

// bookinfo is the command of one of its services. They linger, since proxies of other pods may not yet
// have heard that this one is to end.
func bookinfo(service string) []string {
	return []string{samplePrograms, service, "--listen", ":9080", "--linger", "1s"}
}

// sample is one built in, by its repository or, for programs of the mesh and its examples, by the last
// part of its name: they come from many registries.
func (c *Catalog) sample(name string) (Image, error) {
	s, ok := samples[repository(name)]
	if last := lastPart(name); !ok && (IsProxy(name) || last == "pilot" || strings.HasPrefix(last, "examples-")) {
		s, ok = samples["istio/"+last]
	}
	if !ok {
		return Image{}, &UnknownError{name}
	}
	i := Image{ID: "sample:" + repository(name), Entrypoint: slices.Clone(s.entrypoint), Args: s.args, Env: s.env, UID: -1, GID: -1}
	if s.uid != 0 {
		i.UID, i.GID = s.uid, s.uid
	}
	if len(s.entrypoint) == 0 || !slices.Contains([]string{samplePrograms, opaProgram, agentProgram, controlProgram}, s.entrypoint[0]) {
		return i, nil
	}
	if s.entrypoint[0] != samplePrograms { // exec finds them by name, as in their images
		i.Env = append(slices.Clone(i.Env), "PATH="+c.o.Bin+":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
	}
	i.Entrypoint[0] = filepath.Join(c.o.Bin, s.entrypoint[0])
	if _, err := exec.LookPath(i.Entrypoint[0]); err != nil {
		return Image{}, fmt.Errorf("image %s stands for %s here: %w: build all programs into one directory: make build", name, s.entrypoint[0], err)
	}
	return i, nil
}
