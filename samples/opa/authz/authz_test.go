package authz

import (
	"bytes"
	"context"
	"encoding/json"
	"path"
	"path/filepath"
	"strings"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/open-policy-agent/opa/v1/logging"
	"github.com/open-policy-agent/opa/v1/plugins"
	"github.com/open-policy-agent/opa/v1/plugins/logs"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"golang.org/x/tools/txtar"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// An opa is OPA with the plugin and one policy.
type opa struct {
	*plugins.Manager
	authv3.AuthorizationClient
	plugin *plugin
	logged *bytes.Buffer // its decision log, which is written before each answer
}

// A recorder is a decision log in JSON.
type recorder struct {
	plugins.Plugin
	to *bytes.Buffer
}

func (recorder) Start(context.Context) error { return nil }
func (recorder) Stop(context.Context)        {}

func (r recorder) Log(_ context.Context, event logs.EventV1) error {
	return json.NewEncoder(r.to).Encode(event)
}

// start runs OPA with a configuration of the plugin, in JSON.
func start(t *testing.T, config, policy string) *opa {
	t.Helper()
	logged := &bytes.Buffer{}
	m, err := plugins.New([]byte(`{}`), "test", inmem.New(), plugins.Logger(logging.NewNoOpLogger()))
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Init(t.Context()); err != nil {
		t.Fatal(err)
	}
	o := &opa{Manager: m, logged: logged}
	o.load(t, policy)
	m.Register("recorder", recorder{to: logged})
	decisions, err := logs.NewConfigBuilder().WithBytes([]byte(`{"plugin": "recorder"}`)).WithPlugins([]string{"recorder"}).Parse()
	if err != nil {
		t.Fatal(err)
	}
	m.Register(logs.Name, logs.New(decisions, m))
	validated, err := Factory{}.Validate(m, []byte(config))
	if err != nil {
		t.Fatal(err)
	}
	validated.(*Config).Addr = "127.0.0.1:0"
	o.plugin = Factory{}.New(m, validated).(*plugin)
	m.Register(Name, o.plugin)
	if err := m.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Stop(t.Context()) })
	o.AuthorizationClient = authv3.NewAuthorizationClient(dial(t, o.plugin.addr.String()))
	return o
}

func dial(t *testing.T, address string) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// load puts a policy into force.
func (o *opa) load(t *testing.T, policy string) {
	t.Helper()
	err := storage.Txn(t.Context(), o.Store, storage.WriteParams, func(txn storage.Transaction) error {
		return o.Store.UpsertPolicy(t.Context(), txn, "policy.rego", []byte(policy))
	})
	if err != nil {
		t.Fatal(err)
	}
}

// TestDecisions: testdata has policies, questions, and what proxies are answered. NAME/request.json is
// the HTTP part of a CheckRequest, or all of one; beside it stands NAME/response.json, NAME/error, or both
// NAME/response.json and NAME/log, which is in the decision log (SX-019, MC-040, MC-041).
func TestDecisions(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no testdata", err)
	}
	for _, file := range files {
		archive, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		text := map[string]string{"config.json": `{"path": "istio/authz/allow"}`}
		for _, f := range archive.Files {
			text[f.Name] = string(f.Data)
		}
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			o := start(t, text["config.json"], text["policy.rego"])
			for _, f := range archive.Files {
				if name, what := path.Split(f.Name); what == "request.json" {
					t.Run(path.Clean(name), func(t *testing.T) { o.one(t, name, text) })
				}
			}
		})
	}
}

func (o *opa) one(t *testing.T, name string, text map[string]string) {
	o.logged.Reset()
	answer, err := o.Check(t.Context(), question(t, text[name+"request.json"]))
	if want, ok := text[name+"error"]; ok {
		if err == nil || !strings.Contains(err.Error(), strings.TrimSpace(want)) {
			t.Errorf("answered %v, %v, want the error %s", answer, err, want)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if id := answer.GetDynamicMetadata().GetFields()[decisionKey].GetStringValue(); id != "" {
		if !strings.Contains(o.logged.String(), id) {
			t.Errorf("decision %s is not in the log: %s", id, o.logged)
		}
		delete(answer.GetDynamicMetadata().GetFields(), decisionKey)
	}
	if len(answer.GetDynamicMetadata().GetFields()) == 0 {
		answer.DynamicMetadata = nil
	}
	want := &authv3.CheckResponse{}
	if err := protojson.Unmarshal([]byte(text[name+"response.json"]), want); err != nil {
		t.Fatal(err)
	}
	if !proto.Equal(answer, want) {
		t.Errorf("answered %s\nwant %s", protojson.Format(answer), protojson.Format(want))
	}
	for line := range strings.Lines(text[name+"log"]) {
		if line = strings.TrimSpace(line); !strings.Contains(o.logged.String(), line) {
			t.Errorf("%s is not in the log: %s", line, o.logged)
		}
	}
	if strings.Contains(o.logged.String(), "SECRET") {
		t.Errorf("the log has secrets: %s", o.logged)
	}
}

// question is a CheckRequest, or one with an HTTP part.
func question(t *testing.T, text string) *authv3.CheckRequest {
	t.Helper()
	q := &authv3.CheckRequest{}
	var fields map[string]any
	if err := json.Unmarshal([]byte(text), &fields); err != nil {
		t.Fatal(err)
	}
	if _, whole := fields["attributes"]; !whole {
		text = `{"attributes": {"request": {"http": ` + text + `}}}`
	}
	if err := protojson.Unmarshal([]byte(text), q); err != nil {
		t.Fatal(err)
	}
	return q
}

// TestReload: another policy is in force with the next question, and a decision that is gone is an error (SX-019).
func TestReload(t *testing.T) {
	o := start(t, `{"query": "data.istio.authz.allow"}`, "package istio.authz\n\nallow := false")
	q := question(t, `{"path": "/"}`)
	code := func() int32 {
		answer, err := o.Check(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		return answer.GetStatus().GetCode()
	}
	if got := code(); got != 7 {
		t.Errorf("status %d before, want 7", got)
	}
	o.load(t, "package istio.authz\n\nallow := true")
	if got := code(); got != 0 {
		t.Errorf("status %d after, want 0", got)
	}
	o.load(t, "package istio.other\n\nallow := true")
	if _, err := o.Check(t.Context(), q); err == nil || !strings.Contains(err.Error(), "undefined decision") {
		t.Errorf("without a policy: %v", err)
	}
}

// TestReconfigure: the server goes on with another configuration, and says when it cannot.
func TestReconfigure(t *testing.T) {
	o := start(t, `{"path": "istio/authz/allow"}`, "package istio.authz\n\nallow := false\n\nother := true")
	for _, k := range []struct {
		config, addr string
		state        plugins.State
	}{
		{`{"path": "istio/authz/other"}`, "127.0.0.1:0", plugins.StateOK},
		{`{}`, "unix://" + filepath.Join(t.TempDir(), "none", "sock"), plugins.StateErr},
		{`{"path": "/istio/authz/other/", "enable-reflection": true}`, "unix://" + filepath.Join(t.TempDir(), "sock"), plugins.StateOK},
	} {
		c, err := parseConfig([]byte(k.config))
		if err != nil {
			t.Fatal(err)
		}
		c.Addr = k.addr
		o.plugin.Reconfigure(t.Context(), c)
		if got := o.PluginStatus()[Name]; got == nil || got.State != k.state {
			t.Fatalf("%s: status %v, want %s", k.config, got, k.state)
		}
		if k.state != plugins.StateOK {
			continue
		}
		address := o.plugin.addr.String()
		if o.plugin.addr.Network() == "unix" {
			address = "unix:" + address
		}
		conn, err := grpc.NewClient(address, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := authv3.NewAuthorizationClient(conn).Check(t.Context(), question(t, `{"path": "/"}`))
		if err != nil || answer.GetStatus().GetCode() != 0 {
			t.Errorf("%s: %v, %v", k.config, answer, err)
		}
		_ = conn.Close()
	}
}

// TestConfig: what a configuration may say.
func TestConfig(t *testing.T) {
	for text, want := range map[string]string{
		`{}`:                                     "data.envoy.authz.allow",
		`{"path": "istio/authz/allow"}`:          "data.istio.authz.allow",
		`{"path": "/istio/authz"}`:               "data.istio.authz",
		`{"query": "data.istio.authz.allow"}`:    "data.istio.authz.allow",
		`{"path": "a", "query": "data.a"}`:       "error: plugins.envoy_ext_authz_grpc: path and query both name the decision: say path alone",
		`{"path": "a//b"}`:                       `error: plugins.envoy_ext_authz_grpc.path: "a//b" names no decision: for example istio/authz/allow`,
		`{"query": "input.a"}`:                   `error: plugins.envoy_ext_authz_grpc.query: "input.a" names no decision: for example data.istio.authz.allow`,
		`{"query": "data.a[x]"}`:                 `error: plugins.envoy_ext_authz_grpc.query: "data.a[x]" names no decision: for example data.istio.authz.allow`,
		`{"proto-descriptor": "x.pb"}`:           `error: plugins.envoy_ext_authz_grpc: json: unknown field "proto-descriptor"`,
		`{"grpc-max-recv-msg-size": -1}`:         "error: plugins.envoy_ext_authz_grpc: grpc-max-recv-msg-size and grpc-max-send-msg-size are numbers of bytes",
		`{"addr": 9191}`:                         "error: plugins.envoy_ext_authz_grpc: json: cannot unmarshal number into Go struct field Config.addr of type string",
		`{"dry-run": true, "addr": ":9192"}`:     "data.envoy.authz.allow",
		`{"skip-request-body-parse": true}`:      "data.envoy.authz.allow",
		`{"enable-reflection": true, "addr":""}`: "data.envoy.authz.allow",
	} {
		c, err := parseConfig([]byte(text))
		got := ""
		if err != nil {
			got = "error: " + err.Error()
		} else {
			got = c.decision.String()
		}
		if got != want {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}

// TestLimits: a question that is too large is not answered (MC-040).
func TestLimits(t *testing.T) {
	o := start(t, `{"path": "istio/authz/allow", "grpc-max-recv-msg-size": 1000}`, "package istio.authz\n\nallow := true")
	q := question(t, `{"path": "/", "body": "`+strings.Repeat("x", 1000)+`"}`)
	if _, err := o.Check(t.Context(), q); err == nil || !strings.Contains(err.Error(), "ResourceExhausted") {
		t.Errorf("a large question: %v", err)
	}
	q.Attributes.Request.Http.Body = "x"
	if _, err := o.Check(t.Context(), q); err != nil {
		t.Errorf("a small one: %v", err)
	}
}

// FuzzInput: whatever a client sends, there is an input or a refusal, and no secret is logged.
func FuzzInput(f *testing.F) {
	f.Add("/a%2fb/../c?x=1&x=2;y", "application/json", `{"a": 1}`)
	f.Add("//a/", "multipart/form-data; boundary=b", "--b\r\nContent-Disposition: form-data; name=n\r\nContent-Type: application/json\r\n\r\n{}\r\n--b--\r\n")
	f.Add("/%zz", "application/x-www-form-urlencoded", "a=1&a=2")
	f.Fuzz(func(t *testing.T, path, kind, body string) {
		q := &authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Path: path, RawBody: []byte(body), Headers: map[string]string{"content-type": kind, "cookie": "SECRET-COOKIE"},
		}}}}
		input, err := inputOf(q, true)
		if err != nil {
			return
		}
		if _, ok := input["parsed_path"].([]any); !ok {
			t.Errorf("%q has no parts", path)
		}
		text, err := json.Marshal(withoutSecrets(input))
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Contains(text, []byte("SECRET-COOKIE")) {
			t.Errorf("%s has a secret", text)
		}
		if http := q.GetAttributes().GetRequest().GetHttp(); http.GetHeaders()["cookie"] != "SECRET-COOKIE" || input["attributes"].(map[string]any)["request"] == nil {
			t.Error("the input has changed")
		}
	})
}
