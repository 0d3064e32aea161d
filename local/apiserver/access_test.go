package main_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"io/fs"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// public returns a client that trusts the server, with a token or without any credentials.
func (s *server) public(token string) *http.Client {
	s.t.Helper()
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(s.config().CAData)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	s.t.Cleanup(transport.CloseIdleConnections)
	client := &http.Client{Transport: transport, Timeout: time.Minute}
	if token != "" {
		client.Transport = bearer{token, transport}
	}
	return client
}

type bearer struct {
	token string
	next  http.RoundTripper
}

func (b bearer) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Authorization", "Bearer "+b.token)
	return b.next.RoundTrip(r)
}

func TestNobodyWithoutCredentials(t *testing.T) {
	s := start(t, os.Geteuid())
	for _, path := range []string{"/api", "/apis", "/version", "/healthz", "/readyz", "/livez", "/metrics", "/openapi/v2", "/openapi/v3", "/api/v1/secrets", "/apis/apps/v1/deployments"} {
		for name, client := range map[string]*http.Client{"without credentials": s.public(""), "with a made-up token": s.public("made.up.token")} {
			if status, body := get(t, client, "https://"+s.address+path); status != http.StatusUnauthorized {
				t.Errorf("GET %s %s: %d %s, want 401", path, name, status, body)
			}
		}
	}
	other := start(t, os.Geteuid()) // its authority is another one
	config := other.config()
	config.Host, config.CAData = "https://"+s.address, s.config().CAData
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Secrets("").List(t.Context(), metav1.ListOptions{}); err == nil || !strings.Contains(err.Error(), "Unauthorized") {
		t.Errorf("with another mesh's certificate: %v, want Unauthorized", err)
	}
}

func TestServiceAccounts(t *testing.T) {
	s := start(t, os.Geteuid())
	token := strings.TrimSpace(s.must("", "create", "token", "default"))
	if status, body := get(t, s.public(token), "https://"+s.address+"/api/v1/namespaces/default"); status != http.StatusOK {
		t.Errorf("with a token of a service account: %d %s", status, body)
	}
	client := s.client()
	review := func(token string, audiences ...string) authenticationv1.TokenReviewStatus {
		t.Helper()
		answer, err := client.AuthenticationV1().TokenReviews().Create(t.Context(),
			&authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: token, Audiences: audiences}}, metav1.CreateOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return answer.Status
	}
	if got := review(token); !got.Authenticated || got.User.Username != "system:serviceaccount:default:default" {
		t.Errorf("review of a token: %+v", got)
	}
	if got := review("made.up.token"); got.Authenticated {
		t.Errorf("review of a made-up token: %+v", got)
	}
	mesh := strings.TrimSpace(s.must("", "create", "token", "default", "--audience=istio-ca"))
	if got := review(mesh, "istio-ca"); !got.Authenticated {
		t.Errorf("review of a token for istio-ca: %+v", got)
	}
	if status, _ := get(t, s.public(mesh), "https://"+s.address+"/api"); status != http.StatusUnauthorized {
		t.Errorf("a token for istio-ca opens the API: %d", status)
	}
	s.must("", "create", "serviceaccount", "gone")
	bound := strings.TrimSpace(s.must("", "create", "token", "gone"))
	s.must("", "delete", "serviceaccount", "gone")
	if got := review(bound); got.Authenticated {
		t.Errorf("review of a token of a deleted account: %+v", got)
	}
	s.restart()
	if status, _ := get(t, s.public(token), "https://"+s.address+"/api"); status != http.StatusOK {
		t.Errorf("the token after a restart: %d", status)
	}
	s.must(`{"apiVersion":"v1","kind":"Secret","metadata":{"name":"lasting","annotations":{"kubernetes.io/service-account.name":"default"}},"type":"kubernetes.io/service-account-token"}`, "apply", "-f", "-")
	s.must("", "wait", "--for=jsonpath={.data.token}", "secret/lasting", "--timeout=60s")
}

func TestSocketIsForItsOwner(t *testing.T) {
	s := start(t, os.Geteuid())
	status, body := get(t, s.socket(), "http://lateen/api/v1/namespaces/default")
	if status != http.StatusOK {
		t.Errorf("the owner: %d %s", status, body)
	}
	var reviewed authenticationv1.SelfSubjectReview
	response, err := s.socket().Post("http://lateen/apis/authentication.k8s.io/v1/selfsubjectreviews", "application/json",
		strings.NewReader(`{"apiVersion":"authentication.k8s.io/v1","kind":"SelfSubjectReview"}`))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if err := json.NewDecoder(response.Body).Decode(&reviewed); err != nil || !strings.Contains(strings.Join(reviewed.Status.UserInfo.Groups, " "), "system:masters") {
		t.Errorf("who the owner is: %+v, %v", reviewed.Status, err)
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can try as another user")
	}
	// The modes would refuse another user before; they are opened to see that the server itself does, too.
	os.Chmod(s.dir, 0o755)
	os.Chmod(s.path("api.sock"), 0o666)
	asker := exec.Command(os.Args[0], "-test.run=TestAskSocket")
	asker.Env = []string{"LATEEN_ASK=" + s.path("api.sock")}
	asker.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: ordinary, Gid: ordinary}}
	program := filepath.Join(filepath.Dir(serverBinary), "asker")
	copyProgram(t, os.Args[0], program)
	asker.Path, asker.Dir = program, "/"
	out, err := asker.CombinedOutput()
	if err == nil || !bytes.Contains(out, []byte("refused: ")) {
		t.Errorf("another user: %v\n%s", err, out)
	}
}

// TestAskSocket is run by TestSocketIsForItsOwner as another user.
func TestAskSocket(t *testing.T) {
	socket := os.Getenv("LATEEN_ASK")
	if socket == "" {
		t.Skip("a part of TestSocketIsForItsOwner")
	}
	s := &server{t: t, dir: filepath.Dir(socket)}
	if response, err := s.socket().Get("http://lateen/api"); err != nil {
		t.Fatal("refused: ", err)
	} else {
		response.Body.Close()
	}
}

func copyProgram(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(out, in); err != nil {
		t.Fatal(err)
	}
	if err := out.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestFilesAreForTheirOwner(t *testing.T) {
	s := start(t, os.Geteuid())
	seen := 0
	for _, root := range []string{s.path("state"), s.path("kubeconfig"), s.path("api.sock")} {
		filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
			if err != nil {
				t.Fatal(err)
			}
			info, err := entry.Info()
			if err != nil {
				t.Fatal(err)
			}
			if seen++; info.Mode().Perm()&0o077 != 0 {
				t.Errorf("%s has mode %v", path, info.Mode())
			}
			return nil
		})
	}
	if seen < 10 {
		t.Errorf("only %d files", seen)
	}
}

func TestNotOnOtherAddresses(t *testing.T) {
	dir := t.TempDir()
	out, err := exec.Command(serverBinary, "--state", dir, "--listen", "0.0.0.0:0").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "must be on loopback") {
		t.Errorf("--listen 0.0.0.0:0: %v\n%s", err, out)
	}
}

func TestPortInUse(t *testing.T) {
	s := start(t, os.Geteuid())
	out, err := s.command(serverBinary, "--state", s.path("another"), "--listen", s.address).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "address already in use") || !strings.Contains(string(out), "hint: ") {
		t.Errorf("a port in use: %v\n%s", err, out)
	}
}

func TestTwoServersOnOneState(t *testing.T) {
	s := start(t, os.Geteuid())
	out, err := s.command(serverBinary, "--state", s.path("state")).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "error: ") {
		t.Errorf("a second server on the same state: %v\n%s", err, out)
	}
	// Not its health: what runs after the start may still be on its way.
	if status, _ := get(t, s.socket(), "http://lateen/version"); status != http.StatusOK {
		t.Errorf("the first one afterwards: %d", status)
	}
}
