package crds_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/lateen-mesh/lateen/install/crds"
	"github.com/lateen-mesh/lateen/test/api"
	"github.com/lateen-mesh/lateen/test/material"
)

// An apiServer is a lateen-apiserver that has our definitions.
type apiServer struct {
	client  http.Client
	plurals map[string]string // by group/kind
}

// startServer runs lateen-apiserver until the test ends, and creates our definitions as
// anybody would, so that the server judges them.
func startServer(t *testing.T) *apiServer {
	t.Helper()
	socket := api.Start(t).Socket
	s := &apiServer{plurals: map[string]string{}}
	s.client.Transport = &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}
	t.Cleanup(s.client.CloseIdleConnections)
	s.define(t)
	s.await(t)
	return s
}

// define creates our definitions; the server says nothing against any of them.
func (s *apiServer) define(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	const path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
	for _, definition := range definitions(t, crds.All()) {
		if status, answer := s.call(ctx, "POST", path+"?fieldValidation=Strict", definition, ""); status != http.StatusCreated {
			t.Fatalf("%v: %d %v", definition["metadata"], status, answer)
		}
	}
}

// await returns when all kinds are served in all versions.
func (s *apiServer) await(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for _, definition := range definitions(t, crds.All()) {
		spec := definition["spec"].(object)
		names := spec["names"].(object)
		s.plurals[fmt.Sprint(spec["group"], "/", names["kind"])] = names["plural"].(string)
		for version := range schemas(definition) {
			path := fmt.Sprint("/apis/", spec["group"], "/", version, "/", names["plural"])
			for status := 0; status != http.StatusOK; status, _ = s.call(ctx, "GET", path, nil, "") {
				select {
				case <-again.C:
				case <-ctx.Done():
					t.Fatalf("%s is not served: %d", path, status)
				}
			}
		}
	}
}

// call sends one request; status 0 means that there was no answer.
func (s *apiServer) call(ctx context.Context, method, path string, body any, accept string) (status int, answer object) {
	text, err := json.Marshal(body)
	if err != nil {
		return 0, nil
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://api"+path, bytes.NewReader(text))
	if err != nil {
		return 0, nil
	}
	r.Header.Set("Content-Type", "application/json")
	if accept != "" {
		r.Header.Set("Accept", accept)
	}
	response, err := s.client.Do(r)
	if err != nil {
		return 0, nil
	}
	defer response.Body.Close()
	content, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, nil
	}
	_ = json.Unmarshal(content, &answer)
	return response.StatusCode, answer
}

// create sends an object as `kubectl apply` does: unknown fields are refused.
func (s *apiServer) create(t *testing.T, o object, query string) (int, object) {
	t.Helper()
	meta, _ := o["metadata"].(object)
	if meta == nil {
		meta = object{}
	}
	if meta["name"] == nil {
		meta["name"] = "unnamed"
	}
	meta["namespace"] = "default"
	o["metadata"] = meta
	group, _, _ := strings.Cut(fmt.Sprint(o["apiVersion"]), "/")
	plural := s.plurals[fmt.Sprint(group, "/", o["kind"])]
	if plural == "" {
		t.Fatalf("no kind %v %v", o["apiVersion"], o["kind"])
	}
	return s.call(t.Context(), "POST", fmt.Sprint("/apis/", o["apiVersion"], "/namespaces/default/", plural, "?fieldValidation=Strict", query), o, "")
}

func TestTheServerSaysWhatTheOriginalsSay(t *testing.T) {
	root, s := material.Path(t), startServer(t)
	t.Run("IN-019 what is invalid is refused with the original's words", func(t *testing.T) { s.refusals(t, root) })
	t.Run("IN-019 what is valid is taken", func(t *testing.T) {
		for _, file := range glob(t, root, "data/validation/crd/*-valid.yaml", "data/validation/crd-server/*-valid.yaml") {
			for i, o := range documents(t, read(t, file)) {
				if status, answer := s.create(t, o, "&dryRun=All"); status != http.StatusCreated && !isNewer(fmt.Sprint(answer["message"])) {
					t.Errorf("%s#%d: %d %v", filepath.Base(file), i, status, answer["message"])
				}
			}
		}
	})
	t.Run("VS-001 VS-002 nothing is dropped", func(t *testing.T) { s.keeps(t, root) })
	t.Run("CL-065 columns", s.columns)
	t.Run("VS-002 sni_hosts is stored", s.storesSecondSpelling)
}

// refusals are documents with a part of the error in _err.
func (s *apiServer) refusals(t *testing.T, root string) {
	for _, file := range glob(t, root, "data/validation/crd/*-invalid.yaml", "data/validation/crd-server/*-invalid.yaml") {
		for i, o := range documents(t, read(t, file)) {
			want, _ := o["_err"].(string)
			if want == "" || newerRefusals[want] {
				continue
			}
			delete(o, "_err")
			if status, answer := s.create(t, o, "&dryRun=All"); status < 400 || !strings.Contains(valueWord.ReplaceAllString(fmt.Sprint(answer["message"]), ""), said(want)) {
				t.Errorf("%s#%d: %d %v\nwant %s", filepath.Base(file), i, status, answer["message"], want)
			}
		}
	}
}

// valueWord is what servers print of a value beside a rule's message: its type or,
// the newer ones, itself or nothing.
var valueWord = regexp.MustCompile(`(?:"object"|"integer"|\d+): `)

// said is what a part of an error is with the server's version: a null for a field
// that may not be null counts as no field since Kubernetes 1.20.
func said(want string) string {
	if field, rest, ok := strings.Cut(want, " in body must be of type "); ok && strings.HasSuffix(rest, `: "null"`) {
		return field + ": Required value"
	}
	return valueWord.ReplaceAllString(want, "")
}

// newerRefusals are about fields that our istio.io/api has not: those are refused as unknown.
var newerRefusals = map[string]bool{`Unsupported value: "MANDATORY"`: true}

// keeps applies what users have and compares the specs that come back.
func (s *apiServer) keeps(t *testing.T, root string) {
	for _, dir := range []string{"samples", "scenarios", "golden", "data/samples-extra"} {
		for name, o := range istio(t, filepath.Join(root, dir)) {
			status, answer := s.create(t, o, "&dryRun=All")
			if status != http.StatusCreated {
				t.Errorf("%s/%s: %d %v", dir, name, status, answer["message"])
				continue
			}
			compare(t, name, o["spec"], answer["spec"])
		}
	}
}

func (s *apiServer) columns(t *testing.T) {
	const table = "application/json;as=Table;v=v1;g=meta.k8s.io"
	for _, tt := range []struct{ path, want string }{
		{"networking.istio.io/v1/namespaces/default/virtualservices", "Name Gateways Hosts Age"},
		{"networking.istio.io/v1alpha3/namespaces/default/destinationrules", "Name Host Age"},
		{"networking.istio.io/v1/namespaces/default/gateways", "Name Age"},
		{"networking.istio.io/v1beta1/namespaces/default/serviceentries", "Name Hosts Location Resolution Age"},
		{"networking.istio.io/v1/namespaces/default/workloadentries", "Name Age Address"},
		{"security.istio.io/v1/namespaces/default/authorizationpolicies", "Name Action Age"},
		{"security.istio.io/v1/namespaces/default/peerauthentications", "Name Mode Age"},
	} {
		var names []string
		_, answer := s.call(t.Context(), "GET", "/apis/"+tt.path, nil, table)
		columns, _ := answer["columnDefinitions"].([]any)
		for _, column := range columns {
			names = append(names, fmt.Sprint(column.(object)["name"]))
		}
		if got := strings.Join(names, " "); got != tt.want {
			t.Errorf("%s has columns %q, want %q", tt.path, got, tt.want)
		}
	}
}

func (s *apiServer) storesSecondSpelling(t *testing.T) {
	o := object{"apiVersion": "networking.istio.io/v1alpha3", "kind": "VirtualService", "metadata": object{"name": "second"}, "spec": object{
		"hosts": []any{"a.example"},
		"tls":   []any{object{"match": []any{object{"sni_hosts": []any{"a.example"}}}, "route": []any{object{"destination": object{"host": "a.example"}}}}},
	}}
	if status, answer := s.create(t, o, ""); status != http.StatusCreated {
		t.Fatalf("%d %v", status, answer["message"])
	}
	_, stored := s.call(t.Context(), "GET", "/apis/networking.istio.io/v1/namespaces/default/virtualservices/second", nil, "")
	compare(t, "spec", o["spec"], stored["spec"])
}

func glob(t *testing.T, root string, patterns ...string) (all []string) {
	t.Helper()
	for _, pattern := range patterns {
		files, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil || len(files) == 0 {
			t.Fatalf("%s: no files, %v", pattern, err)
		}
		all = append(all, files...)
	}
	return all
}
