// Command gen makes crds.yaml: one CustomResourceDefinition for every kind of
// Istio's API, from what the module istio.io/api says of it.
//
// Structure comes from the message descriptors by the rules of protobuf's JSON
// form; what descriptors cannot say (groups, versions, short names, columns,
// bounds, CEL rules) stands as markers in the comments of the module's .proto
// files and is read from there. Of our own are the descriptions (words.yaml) and
// the second spelling of names: everywhere in a spec a field may be written as in
// the .proto file, sni_hosts for sniHosts, as Istio's own decoder allows.
//
//	go run ./install/crds/gen            # from the top of the module
//	go generate ./install/crds           # the same
package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"
)

const apiModule = "istio.io/api"

func main() {
	out := flag.String("o", "install/crds/crds.yaml", "file to write")
	flag.Parse()
	text, err := generate()
	if err == nil {
		err = os.WriteFile(*out, text, 0o644) //nolint:gosec // everybody may read a schema
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

// generate returns the whole file.
func generate() ([]byte, error) {
	version, dir, err := locate()
	if err != nil {
		return nil, err
	}
	marks, err := readMarkers(dir)
	if err != nil {
		return nil, err
	}
	said, err := readWords()
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	fmt.Fprintf(&out, "# Made by install/crds/gen from %s %s (Apache-2.0); do not edit.\n", apiModule, version)
	for _, k := range kinds() {
		md := k.ProtoReflect().Descriptor()
		doc, err := definition(md, marks, said[string(md.Name())])
		if err != nil {
			return nil, fmt.Errorf("%s: %w", md.Name(), err)
		}
		out.WriteString("---\n")
		out.Write(doc)
	}
	return out.Bytes(), nil
}

// locate asks the Go tool where the module of Istio's API lies.
func locate() (version, dir string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Version}}\t{{.Dir}}", apiModule).Output()
	if err != nil {
		return "", "", fmt.Errorf("go list -m %s: %w", apiModule, err)
	}
	version, dir, ok := strings.Cut(strings.TrimSpace(string(out)), "\t")
	if !ok || dir == "" {
		return "", "", fmt.Errorf("go list -m %s: its source is not on this machine: go mod download %s", apiModule, apiModule)
	}
	return version, dir, nil
}
