package extauthz

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

func serve(t *testing.T, account string) (address string, log *bytes.Buffer) {
	t.Helper()
	log = &bytes.Buffer{}
	s := httptest.NewUnstartedServer(New(account, log))
	s.Config.Protocols = new(http.Protocols)
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	t.Cleanup(s.Close)
	return s.Listener.Addr().String(), log
}

// TestHTTP: what proxies are answered by HTTP (IN-028, MC-037).
func TestHTTP(t *testing.T) {
	address, _ := serve(t, "")
	for value, want := range map[string]struct {
		code         int
		result, body string
	}{
		"allow": {200, "allowed", ""},
		"deny":  {403, "denied", "denied by ext_authz for not found header `x-ext-authz: allow` in the request"},
		"":      {403, "denied", "denied by ext_authz for not found header `x-ext-authz: allow` in the request"},
	} {
		r, _ := http.NewRequestWithContext(t.Context(), "POST", "http://"+address+"/check/path?q", strings.NewReader("two\nlines"))
		r.Host = "httpbin.test"
		r.Header.Set("x-ext-authz", value)
		r.Header.Set("x-ext-authz-additional-header-override", "mine")
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(answer.Body)
		_ = answer.Body.Close()
		h := answer.Header
		if answer.StatusCode != want.code || string(body) != want.body || h.Get("x-ext-authz-check-result") != want.result || h.Get("x-ext-authz-additional-header-override") != "mine" {
			t.Errorf("%q: %d %q %v", value, answer.StatusCode, body, h)
		}
		if told := h.Get("x-ext-authz-check-received"); !strings.HasPrefix(told, "POST httpbin.test/check/path?q, headers: map[") || !strings.HasSuffix(told, "body: [two lines]") {
			t.Errorf("%q: received %q", value, told)
		}
	}
}

// TestGRPC: an Authorization service as any client of gRPC sees it (IN-028, MC-041).
func TestGRPC(t *testing.T) {
	address, log := serve(t, "a")
	c, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for _, k := range []struct {
		name, header, principal string
		allowed                 bool
	}{
		{"the header", "allow", "spiffe://cluster.local/ns/foo/sa/b", true},
		{"the account", "", "spiffe://cluster.local/ns/foo/sa/a", true},
		{"neither", "deny", "spiffe://cluster.local/ns/foo/sa/ba", false},
	} {
		answer, err := authv3.NewAuthorizationClient(c).Check(t.Context(), &authv3.CheckRequest{Attributes: &authv3.AttributeContext{
			Source: &authv3.AttributeContext_Peer{Principal: k.principal},
			Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{Method: "GET", Host: "httpbin.test", Path: "/ip", Size: 5, Body: "hello",
				Headers: map[string]string{"x-ext-authz": k.header}}},
		}})
		if err != nil {
			t.Fatalf("%s: %v", k.name, err)
		}
		headers, result := answer.GetOkResponse().GetHeaders(), "allowed"
		if !k.allowed {
			headers, result = answer.GetDeniedResponse().GetHeaders(), "denied"
			if d := answer.GetDeniedResponse(); d.GetStatus().GetCode() != 403 || !strings.HasPrefix(d.GetBody(), "denied by ext_authz") {
				t.Errorf("%s: %v", k.name, d)
			}
		}
		if (answer.GetStatus().GetCode() == 0) != k.allowed || len(headers) != 3 || headers[0].GetHeader().GetKey() != "x-ext-authz-check-result" ||
			headers[0].GetHeader().GetValue() != result || headers[1].GetHeader().GetValue() != "GET httpbin.test/ip, headers: map[x-ext-authz:"+k.header+"], body: [hello]" ||
			headers[2].GetHeader().GetValue() != "grpc-additional-header-override-value" {
			t.Errorf("%s: %v", k.name, answer)
		}
	}
	if err := c.Invoke(t.Context(), "/a.B/C", &authv3.CheckRequest{}, &authv3.CheckResponse{}); status.Code(err) != codes.Unimplemented {
		t.Error(err)
	}
	if !strings.Contains(log.String(), "[gRPC][denied]: GET httpbin.test/ip") {
		t.Errorf("the log is %q", log)
	}
}

// FuzzQuestion: what is no CheckRequest is an error, and what is one is read as such.
func FuzzQuestion(f *testing.F) {
	b, _ := proto.Marshal(&authv3.CheckRequest{Attributes: &authv3.AttributeContext{Request: &authv3.AttributeContext_Request{
		Http: &authv3.AttributeContext_HttpRequest{Method: "GET", Headers: map[string]string{"a": "b"}}}}})
	f.Add(append([]byte{0, 0, 0, 0, byte(len(b))}, b...))
	f.Fuzz(func(t *testing.T, frame []byte) {
		q, err := readQuestion(frame)
		var want authv3.CheckRequest
		if err != nil || proto.Unmarshal(frame[5:], &want) != nil {
			return
		}
		if got := want.GetAttributes().GetRequest().GetHttp().GetMethod(); got != q.method {
			t.Errorf("method %q, want %q", q.method, got)
		}
	})
}
