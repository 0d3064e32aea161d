package extauthz

import (
	"maps"
	"slices"
	"strings"
	"testing"

	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	networkv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/ext_authz/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/lateen-mesh/lateen/proxy/callout"
	"github.com/lateen-mesh/lateen/proxy/http"
	"github.com/lateen-mesh/lateen/proxy/network"
	"github.com/lateen-mesh/lateen/proxy/route"
	"github.com/lateen-mesh/lateen/proxy/stats"
	"github.com/lateen-mesh/lateen/proxy/streaminfo"
)

func packed(t testing.TB, m proto.Message, fields string) *anypb.Any {
	t.Helper()
	if err := protojson.Unmarshal([]byte("{"+fields+"}"), m); err != nil {
		t.Fatal(err)
	}
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

const toNobody = `"grpcService":{"envoyGrpc":{"clusterName":"nobody"}},"transportApiVersion":"V3"`

// nobody is a proxy without clusters: no check comes to a decision.
func nobody() Deps {
	return Deps{Calls: &callout.Client{Cluster: func(string) callout.Cluster { return nil }},
		NodeMetadata: map[string]any{"LABELS": map[string]any{"app": "a", "n": 5.0}}}
}

func newTest(t testing.TB, store *stats.Store, fields string) http.Filter {
	t.Helper()
	f, err := Factory(nobody()).New(packed(t, &extauthzv3.ExtAuthz{}, fields), http.Env{Name: Name, Stats: store.Scope("http.x.")})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func newStream() *http.Stream {
	s := &http.Stream{}
	s.Begin(nil, 1, nil)
	s.Request = http.Request{Method: []byte("GET"), Path: []byte("/"), Authority: []byte("a"), Body: http.NoBody}
	s.Response.Body = http.NoBody
	s.Route = &route.Target{Decision: route.Decision{Route: &route.Route{}}}
	return s
}

// TestNoDecision: what becomes of a request about which there is none.
func TestNoDecision(t *testing.T) {
	for _, c := range []struct {
		name, fields string
		status       int // 0: it passes
		counted      string
	}{
		{"closed", toNobody, 403, "error"},
		{"closed, with a status", toNobody + `,"statusOnError":{"code":503}`, 503, "error"},
		{"open", toNobody + `,"failureModeAllow":true,"failureModeAllowHeaderAdd":true`, 0, "failure_mode_allowed"},
		{"off", toNobody + `,"filterEnabled":{"defaultValue":{}}`, 0, "disabled"},
		{"off, and closed", toNobody + `,"filterEnabled":{"defaultValue":{}},"denyAtDisable":{"defaultValue":true,"runtimeKey":"x"}`, 403, "disabled"},
		{"by HTTP", `"httpService":{"serverUri":{"uri":"http://a","cluster":"nobody","timeout":"1s"}},"transportApiVersion":"V3"`, 403, "error"},
	} {
		store := stats.NewStore()
		s := newStream()
		verdict := newTest(t, store, c.fields).OnRequest(s, 0)
		reply, replied := s.TakeReply()
		if replied != (c.status != 0) || reply.Status != c.status || (verdict == http.Replied) != replied {
			t.Errorf("%s: %d, replied %v", c.name, reply.Status, replied)
		}
		if replied && (reply.Details != "ext_authz_error" || reply.Flag != streaminfo.UnauthorizedExternalService) {
			t.Errorf("%s: %+v", c.name, reply)
		}
		if n := store.Scope("http.x.ext_authz.").Counter(c.counted).Value(); n != 1 {
			t.Errorf("%s: %s is %d", c.name, c.counted, n)
		}
		if told := s.Request.Headers.Has("x-envoy-auth-failure-mode-allowed"); told != (c.name == "open") {
			t.Errorf("%s: told of it: %v", c.name, told)
		}
	}
}

// TestForetold: a stream that is only explained is not asked about.
func TestForetold(t *testing.T) {
	s, said := newStream(), ""
	s.Tell = func(what string) { said = what }
	if newTest(t, stats.NewStore(), toNobody).OnRequest(s, 0) != http.Continue || said != "ext_authz: cluster nobody by gRPC is asked" {
		t.Errorf("%q", said)
	}
}

// TestRefused: what the filters do not have, or cannot be, is named.
func TestRefused(t *testing.T) {
	for fields, want := range map[string]string{
		`"transportApiVersion":"V3"`:                                                            "grpc_service or http_service: one must be set",
		toNobody + `,"shadowMode":true`:                                                         "shadow_mode: not supported",
		toNobody + `,"filterMetadata":{}`:                                                       "filter_metadata: not supported",
		`"grpcService":{"envoyGrpc":{"clusterName":"a"}}`:                                       "",
		toNobody + `,"withRequestBody":{}`:                                                      "with_request_body: max_request_bytes: must be greater than 0",
		toNobody + `,"filterEnabledMetadata":{}`:                                                "filter_enabled_metadata: ",
		toNobody + `,"allowedHeaders":{"patterns":[{}]}`:                                        "allowed_headers: patterns[0]: match_pattern: not set",
		toNobody + `,"decoderHeaderMutationRules":{"allowExpression":{"regex":"("}}`:            "decoder_header_mutation_rules: allow_expression: ",
		`"httpService":{}`:                                                                      "http_service: server_uri: must be set",
		`"httpService":{"serverUri":{"uri":"a","cluster":"a"}}`:                                 "http_service: server_uri.timeout: must be set",
		`"httpService":{"serverUri":{"uri":"a","cluster":"a","timeout":"1s"},"pathPrefix":"a"}`: "http_service: path_prefix",
		`"httpService":{"serverUri":{"uri":"a","cluster":"a","timeout":"1s"},"retryPolicy":{}}`: "http_service: retry_policy: not supported",
		`"transportApiVersion":"V2","grpcService":{"envoyGrpc":{"clusterName":"a"}}`:            "transport_api_version: V2: not supported",
		`"httpService":{"serverUri":{"uri":"a","cluster":"a","timeout":"1s"},"authorizationRequest":{"headersToAdd":[{"key":"a","value":"%X%"}]}}`: "http_service: authorization_request.headers_to_add[0].value",
	} {
		_, err := Factory(nobody()).New(packed(t, &extauthzv3.ExtAuthz{}, fields), http.Env{Stats: stats.NewStore().Scope("")})
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v, want %q", fields, err, want)
		}
	}
	for fields, want := range map[string]string{
		`"disabled":false`: "disabled: must be true",
		``:                 "override: not set",
		`"checkSettings":{"disableRequestBodyBuffering":true,"withRequestBody":{"maxRequestBytes":1}}`: "only one may be set",
		`"checkSettings":{"grpcService":{}}`: "check_settings: grpc_service: envoy_grpc.cluster_name",
	} {
		if _, err := Factory(nobody()).Override(packed(t, &extauthzv3.ExtAuthzPerRoute{}, fields), http.Env{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", fields, err, want)
		}
	}
	for fields, want := range map[string]string{
		toNobody: "stat_prefix: must not be empty",
		`"statPrefix":"a","sendTlsAlertOnDenial":true,` + toNobody: "send_tls_alert_on_denial: not supported",
	} {
		if _, err := NetworkFactory(nobody(), stats.NewStore()).New(packed(t, &networkv3.ExtAuthz{}, fields), network.Env{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", fields, err, want)
		}
	}
}

// TestConnections: what becomes of a connection about which there is no decision.
func TestConnections(t *testing.T) {
	for fields, passes := range map[string]bool{
		toNobody:                              false,
		toNobody + `,"failureModeAllow":true`: true,
		toNobody + `,"filterEnabledMetadata":{"filter":"a","path":[{"key":"b"}],"value":{"presentMatch":true}}`: true,
	} {
		built, err := NetworkFactory(nobody(), stats.NewStore()).New(packed(t, &networkv3.ExtAuthz{}, `"statPrefix":"a",`+fields), network.Env{})
		if err != nil {
			t.Fatal(err)
		}
		c := &network.Conn{Info: &streaminfo.Info{}}
		if built.Filter.OnConnect(c) != passes || !passes && (c.Info.CodeDetails != "ext_authz_error" || c.Info.Flags.String() != "UAEX") {
			t.Errorf("%s: passes %v, %s %s", fields, !passes, c.Info.CodeDetails, c.Info.Flags)
		}
		built.Close()
	}
}

func TestLabels(t *testing.T) {
	if got := nobody().labels("LABELS"); !maps.Equal(got, map[string]string{"app": "a", "n": ""}) || nobody().labels("none") != nil {
		t.Errorf("%v", got)
	}
}

func TestChangeQuery(t *testing.T) {
	for _, c := range []struct {
		path string
		set  [][2]string
		drop []string
		want string
	}{
		{"/", [][2]string{{"a", "1"}}, nil, "/?a=1"},
		{"/?b=1&a=2&b=3", nil, nil, "/?a=2&b=1&b=3"},
		{"/?b=1&a=2&b=3", [][2]string{{"b", "4"}}, []string{"a"}, "/?b=4"},
		{"/?a", nil, []string{"a"}, "/"},
		{"/?&&c", nil, nil, "/?c="},
	} {
		if got := changeQuery(c.path, c.set, c.drop); got != c.want {
			t.Errorf("%s: %s, want %s", c.path, got, c.want)
		}
	}
}

// TestRules: which changes of a request its service may make.
func TestRules(t *testing.T) {
	for fields, c := range map[string]struct{ yes, no []string }{
		``:                       {[]string{"x-a", ":path", "-x-a"}, []string{"host", ":authority", ":method", ":scheme", "x-envoy-a", "-:path", "-host"}},
		`"allowAllRouting":true`: {[]string{"host", ":method", ":authority"}, []string{"x-envoy-a", ":scheme", "-host"}},
		`"allowEnvoy":true`:      {[]string{"x-envoy-a", "-x-envoy-a"}, []string{"host"}},
		`"disallowSystem":true`:  {[]string{"x-a"}, []string{":path"}},
		`"disallowAll":true,"allowExpression":{"regex":"x-a"}`:                      {nil, []string{"x-a", "x-b"}},
		`"allowExpression":{"regex":"x-.*"},"disallowExpression":{"regex":"x-b.*"}`: {[]string{"x-envoy-a", "x-a"}, []string{"x-b", "x-bc"}},
	} {
		var pb extauthzv3.ExtAuthz
		packed(t, &pb, `"decoderHeaderMutationRules":{`+fields+`}`)
		r, err := newRules(pb.GetDecoderHeaderMutationRules())
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range slices.Concat(c.yes, c.no) {
			plain, removes := strings.CutPrefix(name, "-")
			if got := r.permits(plain, "v", removes); got != slices.Contains(c.yes, name) {
				t.Errorf("{%s} %s: permitted %v", fields, name, got)
			}
		}
		if r.isError = true; len(c.no) > 0 && r.judge(c.no[0], "v", false) != fails {
			t.Errorf("{%s}: no error", fields)
		}
	}
	var none *rules
	if none.judge("host", "", false) != permitted {
		t.Error("no rules do not permit")
	}
}

func TestText(t *testing.T) {
	if got := text([]byte("a\xff\xfeb\u00e4")); got != "a!!b\u00e4" {
		t.Errorf("%q", got)
	}
}

// FuzzDecision: whatever a service answers, a request stays one, and an answer has a status.
func FuzzDecision(f *testing.F) {
	for _, text := range []string{
		`{"okResponse":{"headers":[{"header":{"key":"a","value":"b"},"append":true}],"headersToRemove":["a"],"queryParametersToSet":[{"key":"a"}]}}`,
		`{"status":{"code":7},"deniedResponse":{"status":{"code":401},"body":"x","headers":[{"header":{"key":"a"}}]}}`,
		`{"status":{"code":7},"errorResponse":{}}`,
	} {
		var r authv3.CheckResponse
		if err := protojson.Unmarshal([]byte(text), &r); err != nil {
			f.Fatal(err)
		}
		b, _ := proto.Marshal(&r)
		f.Add(b, true)
	}
	f.Fuzz(func(t *testing.T, b []byte, validate bool) {
		var r authv3.CheckResponse
		if proto.Unmarshal(b, &r) != nil {
			return
		}
		fields := toNobody
		if validate {
			fields += `,"validateMutations":true`
		}
		flt, s := newTest(t, stats.NewStore(), fields).(*filter), newStream()
		d := decisionOf(&r)
		flt.keepMetadata(s, d, 0)
		verdict := flt.carryOut(s, 0, d)
		reply, replied := s.TakeReply()
		if replied != (verdict == http.Replied) || replied && reply.Status == 0 {
			t.Errorf("%v: %d", verdict, reply.Status)
		}
		flt.OnResponse(s, 0)
	})
}
