package main_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

// A step is one call of kubectl and what it must print.
type step struct {
	args string   // split at blanks, but for what 'quotes' hold
	in   string   // standard input
	want []string // regular expressions, each found in what is printed
	fail bool     // whether the exit status is not 0
}

var words = regexp.MustCompile(`'[^']*'|[^ ]+`)

func (st step) run(t *testing.T, s *server) {
	t.Helper()
	var args []string
	for _, word := range words.FindAllString(st.args, -1) {
		args = append(args, strings.Trim(word, "'"))
	}
	began := time.Now()
	out, err := s.kubectl(st.in, args...)
	t.Logf("%5d ms  kubectl %s", time.Since(began).Milliseconds(), st.args)
	if (err != nil) != st.fail {
		t.Errorf("kubectl %s: %v, want failure: %v\n%s", st.args, err, st.fail, out)
	}
	for _, want := range st.want {
		if !regexp.MustCompile(want).MatchString(out) {
			t.Errorf("kubectl %s: no %q in\n%s", st.args, want, out)
		}
	}
}

// asBoth runs a test as the user of this process, and as one without privileges.
func asBoth(t *testing.T, test func(t *testing.T, uid int)) {
	for name, uid := range map[string]int{"as the user of the test": os.Geteuid(), "as an ordinary user": ordinary} {
		t.Run(name, func(t *testing.T) { test(t, uid) })
	}
}

func TestKubectl(t *testing.T) {
	asBoth(t, func(t *testing.T, uid int) {
		s := start(t, uid)
		runNode(t, s)
		for _, group := range verbs(t) {
			t.Run(group.name, func(t *testing.T) {
				for _, st := range group.steps {
					st.run(t, s)
				}
			})
		}
	})
}

type group struct {
	name  string
	steps []step
}

// verbs are the verbs of kubectl, in an order in which each finds what it needs.
func verbs(t *testing.T) []group {
	hello, list := testdata(t, "hello.yaml"), testdata(t, "list.yaml")
	scaled := strings.Replace(hello, "replicas: 2", "replicas: 3", 1)
	return []group{
		{"version and cluster", []step{
			{args: "version", want: []string{`Server Version: v1\.36`}},
			{args: "cluster-info", want: []string{"control plane.*is running at.*https://127.0.0.1"}},
			{args: "get --raw /healthz", want: []string{"^ok"}},
			{args: "get --raw /livez", want: []string{"^ok"}},
			{args: "get --raw /readyz", want: []string{"^ok"}},
			{args: "get namespaces", want: []string{"default +Active", "kube-system +Active", "kube-public +Active", "kube-node-lease +Active"}},
			{args: "get nodes -o wide", want: []string{`lateen +Ready .* 10\.244\.0\.1`}},
			{args: "get service kubernetes", want: []string{`10\.96\.0\.1 .*443/TCP`}},
			{args: "get endpointslices", want: []string{`kubernetes +IPv4 +6443 +10\.244\.0\.1`}},
			{args: "get service -n kube-system kube-dns", want: []string{`10\.96\.0\.10 .*53/UDP,53/TCP`}},
		}},
		{"api-resources and explain", []step{
			{args: "api-versions", want: []string{"(?m)^v1$", "(?m)^apps/v1$", "(?m)^admissionregistration.k8s.io/v1$", "(?m)^autoscaling/v2$"}},
			{args: "api-resources", want: []string{
				"pods +po +v1 +true +Pod", "deployments +deploy +apps/v1", "cronjobs +cj +batch/v1", "endpointslices +discovery.k8s.io/v1",
				"roles +rbac", "leases +coordination", "ingresses +ing", "networkpolicies", "horizontalpodautoscalers +hpa", "poddisruptionbudgets",
				"customresourcedefinitions", "validatingwebhookconfigurations", "validatingadmissionpolicies", "events +ev", "selfsubjectreviews", "tokenreviews",
			}},
			{args: "explain deployment.spec.strategy", want: []string{"RollingUpdate"}},
		}},
		{"apply", []step{
			{args: "diff -f -", in: hello, want: []string{`\+kind: Deployment`}, fail: true},
			{args: "apply -f -", in: hello, want: []string{"service/hello created", "deployment.apps/hello created"}},
			{args: "apply -f -", in: hello, want: []string{"service/hello unchanged", "deployment.apps/hello unchanged"}},
			{args: "diff -f -", in: hello},
			{args: "diff -f -", in: scaled, want: []string{`-  replicas: 2`, `\+  replicas: 3`}, fail: true},
			{args: "apply -f -", in: scaled, want: []string{"deployment.apps/hello configured"}},
			{args: "apply -f -", in: strings.Replace(hello, "replicas:", "replicaz:", 1), want: []string{`unknown field "spec.replicaz"`}, fail: true},
			{args: "apply -f -", in: strings.Replace(hello, "port: 80,", "port: 80000,", 1), want: []string{`The Service "hello" is invalid: spec.ports\[0\].port: Invalid value: 80000: must be between 1 and 65535`}, fail: true},
			{args: "apply --server-side -f - --field-manager other", in: hello, want: []string{"deployment.apps/hello serverside-applied"}},
			{args: "apply --server-side -f - --field-manager third", in: scaled, want: []string{`conflict with "other"`, `\.spec\.replicas`}, fail: true},
			{args: "apply --server-side --force-conflicts -f - --field-manager third", in: scaled, want: []string{"deployment.apps/hello serverside-applied"}},
			{args: "apply --dry-run=server -f -", in: strings.Replace(hello, "name: hello", "name: dry", 3), want: []string{`created \(server dry run\)`}},
			{args: "apply -f -", in: list, want: []string{"configmap/first created", "configmap/second created"}},
			{args: "apply view-last-applied configmap first", want: []string{"key: one"}},
		}},
		{"create", []step{
			{args: "create namespace shop", want: []string{"namespace/shop created"}},
			{args: "create configmap settings --from-literal=a=unedited", want: []string{"configmap/settings created"}},
			{args: "create secret generic keys --from-literal=a=b", want: []string{"secret/keys created"}},
			{args: "create serviceaccount robot", want: []string{"serviceaccount/robot created"}},
			{args: "create role reader --verb=get --resource=pods", want: []string{"role.rbac.authorization.k8s.io/reader created"}},
			{args: "create rolebinding reads --role=reader --serviceaccount=default:robot", want: []string{"created"}},
			{args: "create clusterrole all --verb=* --resource=*", want: []string{"created"}},
			{args: "create deployment second --image=example.test/second:1 --replicas=1", want: []string{"deployment.apps/second created"}},
			{args: "create service nodeport second --tcp=80:8080", want: []string{"service/second created"}},
			{args: "create ingress web --rule=shop.example.test/=hello:80", want: []string{"created"}},
			{args: "create quota some --hard=pods=10", want: []string{"created"}},
			{args: "create poddisruptionbudget some --selector=app=hello --min-available=1", want: []string{"created"}},
			{args: "create job once --image=example.test/once:1", want: []string{"job.batch/once created"}},
			{args: "create cronjob often --image=example.test/often:1 '--schedule=0 0 1 1 *'", want: []string{"cronjob.batch/often created"}},
			{args: "expose deployment second --name=third --port=81", want: []string{"service/third exposed"}},
			{args: "autoscale deployment second --min=1 --max=2", want: []string{"horizontalpodautoscaler.autoscaling/second autoscaled"}},
			{args: "run single --image=example.test/single:1 --restart=Always", want: []string{"pod/single created"}},
			{args: "create configmap settings", want: []string{`configmaps "settings" already exists`}, fail: true},
			{args: "create -f -", in: `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"generateName":"made-"}}`, want: []string{"configmap/made-[a-z0-9]{5} created"}},
		}},
		{"rollout", []step{
			{args: "rollout status deployment hello --timeout=60s", want: []string{`deployment "hello" successfully rolled out`}},
			{args: "set image deployment/hello hello=example.test/hello:2", want: []string{"image updated"}},
			{args: "rollout status deployment hello --timeout=60s", want: []string{"successfully rolled out"}},
			{args: "rollout history deployment hello", want: []string{"(?m)^1 ", "(?m)^2 "}},
			{args: "rollout undo deployment hello", want: []string{"rolled back"}},
			{args: "rollout status deployment hello --timeout=60s"},
			{args: "get deployment hello -o jsonpath={.spec.template.spec.containers[0].image}", want: []string{"^example.test/hello:1$"}},
			{args: "rollout restart deployment hello", want: []string{"deployment.apps/hello restarted"}},
			{args: "rollout status deployment hello --timeout=60s"},
			{args: "rollout pause deployment hello", want: []string{"paused"}},
			{args: "rollout resume deployment hello", want: []string{"resumed"}},
			{args: "set env deployment/hello COLOUR=green", want: []string{"env updated"}},
			{args: "scale deployment hello --replicas=5", want: []string{"deployment.apps/hello scaled"}},
			{args: "rollout status deployment hello --timeout=60s"},
			{args: "wait --for=condition=complete job/once --timeout=60s", want: []string{"job.batch/once condition met"}},
			{args: "wait --for=condition=Ready pod/single --timeout=60s", want: []string{"condition met"}},
		}},
		{"get", []step{
			{args: "get deployments", want: []string{"NAME +READY +UP-TO-DATE +AVAILABLE +AGE", `hello +5/5 +5 +5`}},
			{args: "get pods -l app=hello -o wide", want: []string{"NOMINATED NODE", `hello-.* 1/1 +Running +0 .* 10\.244\.7\.\d+ +lateen`}},
			{args: "get pods -l 'app in (second)' -o name", want: []string{"^pod/second-"}},
			{args: "get pods --field-selector status.phase=Succeeded -o name", want: []string{"^pod/once-"}},
			{args: "get pods --field-selector spec.nodeName=elsewhere", want: []string{"No resources found"}},
			{args: "get all", want: []string{"pod/hello-", "service/hello", "deployment.apps/hello", "replicaset.apps/hello-", "job.batch/once", "cronjob.batch/often"}},
			{args: "get deploy,svc hello -o yaml", want: []string{"kind: Deployment", "kind: Service"}},
			{args: "get deploy hello -o json", want: []string{`"readyReplicas": 5`}},
			{args: "get svc hello -o jsonpath={.spec.clusterIP}", want: []string{`^10\.96\.\d+\.\d+$`}},
			{args: "get svc second -o jsonpath={.spec.ports[0].nodePort}", want: []string{`^3\d{4}$`}},
			{args: "get svc -o custom-columns=A:.metadata.name,B:.spec.type", want: []string{"hello +ClusterIP", "second +NodePort"}},
			{args: "get endpointslices -l kubernetes.io/service-name=hello", want: []string{`hello-\w+ +IPv4 +8080 +10\.244\.7\.`}},
			{args: "get pods --sort-by=.metadata.creationTimestamp --show-labels", want: []string{"app=hello"}},
			{args: "get pods -A", want: []string{"NAMESPACE +NAME"}},
			{args: "get events --field-selector reason=Scheduled", want: []string{"Successfully assigned default/single to lateen"}},
			{args: "get pods -o 'go-template={{len .items}}'", want: []string{`^\d+$`}},
			{args: "get configmap kube-root-ca.crt -o yaml", want: []string{"BEGIN CERTIFICATE"}},
			{args: "get pod single -o jsonpath={.spec.volumes[0].projected.sources[*]}", want: []string{"serviceAccountToken", "kube-root-ca.crt", "downwardAPI"}},
			{args: "get hpa,ing,pdb,quota,role,rolebinding", want: []string{"horizontalpodautoscaler.autoscaling/second", "ingress.networking.k8s.io/web", "poddisruptionbudget.policy/some", "resourcequota/some"}},
			{args: "get pods --chunk-size=2 -o name", want: []string{"pod/single"}},
			{args: "get pod nobody", want: []string{`pods "nobody" not found`}, fail: true},
		}},
		{"schedule", []step{
			{args: "apply -f -", in: choosy, want: []string{"pod/choosy created"}},
			{args: "wait --for=condition=PodScheduled=false pod/choosy --timeout=60s", want: []string{"condition met"}},
			{args: "describe pod choosy", want: []string{"FailedScheduling.*didn't match Pod's node affinity/selector"}},
			{args: "label node lateen disk=fast", want: []string{"labeled"}},
			{args: "wait --for=condition=Ready pod/choosy --timeout=60s", want: []string{"condition met"}},
			{args: "get events --field-selector involvedObject.name=choosy,reason=Scheduled", want: []string{"Successfully assigned"}},
			{args: "cordon lateen", want: []string{"cordoned"}},
			{args: "run later --image=example.test/later:1", want: []string{"created"}},
			{args: "wait --for=condition=PodScheduled=false pod/later --timeout=60s", want: []string{"condition met"}},
			{args: "uncordon lateen", want: []string{"uncordoned"}},
			{args: "wait --for=condition=Ready pod/later --timeout=60s", want: []string{"condition met"}},
		}},
		{"endpoints written by hand", []step{
			{args: "apply -f -", in: byHand, want: []string{"service/outside created", "endpoints/outside created"}},
			{args: "wait --for=create endpointslice -l kubernetes.io/service-name=outside --timeout=60s", want: []string{"condition met"}},
			{args: "get endpointslices -l kubernetes.io/service-name=outside", want: []string{`IPv4 +5432 +192\.0\.2\.7`}},
			{args: "get endpoints kubernetes", want: []string{`10\.244\.0\.1:6443`}},
		}},
		{"describe", []step{
			{args: "describe deployment hello", want: []string{"Replicas: +5 desired", "StrategyType: +RollingUpdate", "ScalingReplicaSet"}},
			{args: "describe pod single", want: []string{"Node: +lateen", "PodScheduled +True", "Ready +True", "Normal +Scheduled .*default-scheduler +Successfully assigned"}},
			{args: "describe service hello", want: []string{"Selector: +app=hello", `Endpoints: +10\.244\.7\.`}},
			{args: "describe node lateen", want: []string{"kubernetes.io/hostname=lateen", "Non-terminated Pods"}},
		}},
		{"label, annotate, edit, replace, patch", []step{
			{args: "label deployment hello tier=front", want: []string{"deployment.apps/hello labeled"}},
			{args: "get deployments -l tier=front -o name", want: []string{"^deployment.apps/hello\n$"}},
			{args: "label deployment hello tier-", want: []string{"unlabeled"}},
			{args: "annotate service hello note=this", want: []string{"service/hello annotated"}},
			{args: "edit configmap settings", want: []string{"configmap/settings edited"}},
			{args: "get configmap settings -o jsonpath={.data.a}", want: []string{"^edited$"}},
			{args: "replace -f -", in: `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"settings"},"data":{"a":"replaced"}}`, want: []string{"configmap/settings replaced"}},
			{args: "replace -f -", in: `{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"settings","resourceVersion":"1"},"data":{}}`, want: []string{"the object has been modified"}, fail: true},
			{args: `patch configmap settings --type=merge -p {"data":{"b":"merged"}}`, want: []string{"configmap/settings patched"}},
			{args: `patch configmap settings --type=json -p [{"op":"remove","path":"/data/a"}]`, want: []string{"patched"}},
			{args: "get configmap settings -o jsonpath={.data}", want: []string{`^\{"b":"merged"\}$`}},
			{args: `patch deployment hello --type=strategic -p {"spec":{"template":{"spec":{"containers":[{"name":"hello","env":[{"name":"SIZE","value":"large"}]}]}}}}`, want: []string{"patched"}},
			{args: "get deployment hello -o jsonpath={.spec.template.spec.containers[0].env[*].name}", want: []string{"COLOUR", "SIZE"}},
			{args: `patch pod single --subresource=status --type=merge -p {"status":{"message":"told"}}`, want: []string{"pod/single patched"}},
			{args: "get pod single -o jsonpath={.status.message}", want: []string{"^told$"}},
			{args: "patch deployment hello --subresource=scale --type=merge -p {\"spec\":{\"replicas\":2}}", want: []string{"patched"}},
			{args: "rollout status deployment hello --timeout=60s"},
		}},
		{"auth and tokens", []step{
			{args: "auth whoami", want: []string{"Username +kubernetes-admin", `system:masters`}},
			{args: "auth can-i create deployments", want: []string{"^yes"}},
			{args: "auth can-i --list", want: []string{`\*\.\* .*\[\*\]`}},
			{args: "create token robot --duration=10m", want: []string{`^[\w-]+\.[\w-]+\.[\w-]+\n?$`}},
			{args: "create token nobody", want: []string{`serviceaccounts "nobody" not found`}, fail: true},
		}},
		{"custom resources", customResources(t)},
		{"delete", []step{
			{args: "delete deployment second --wait", want: []string{`deployment.apps "second" deleted`}},
			{args: "wait --for=delete pod -l app=second --timeout=60s"},
			{args: "get replicasets -l app=second", want: []string{"No resources found"}},
			{args: "delete deployment hello --cascade=foreground --timeout=60s", want: []string{"deleted"}},
			{args: "get pods -l app=hello", want: []string{"No resources found"}},
			{args: "create deployment left --image=example.test/left:1", want: []string{"created"}},
			{args: "rollout status deployment left --timeout=60s"},
			{args: "delete deployment left --cascade=orphan", want: []string{"deleted"}},
			{args: "get replicasets -l app=left -o jsonpath={.items[*].metadata.ownerReferences}", want: []string{"^$"}},
			{args: "delete replicasets -l app=left", want: []string{"deleted"}},
			{args: "delete pod single --now", want: []string{`pod "single" (force )?deleted`}},
			{args: "delete -f -", in: list, want: []string{`configmap "first" deleted`, `configmap "second" deleted`}},
			{args: "create configmap inside -n shop", want: []string{"created"}},
			{args: "delete namespace shop --timeout=60s", want: []string{`namespace "shop" deleted`}},
			{args: "get configmap inside -n shop", want: []string{"not found"}, fail: true},
			{args: "delete namespace default", want: []string{"this namespace may not be deleted"}, fail: true},
		}},
	}
}

// byHand is a Service whose endpoint is not a Pod.
const byHand = `
apiVersion: v1
kind: Service
metadata: {name: outside}
spec: {ports: [{name: db, port: 5432}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: outside}
subsets: [{addresses: [{ip: 192.0.2.7}], ports: [{name: db, port: 5432}]}]
`

// choosy is a Pod that runs on nodes with a fast disk only.
const choosy = `{"apiVersion":"v1","kind":"Pod","metadata":{"name":"choosy"},"spec":{"nodeSelector":{"disk":"fast"},"containers":[{"name":"c","image":"example.test/c:1"}]}}`

func customResources(t *testing.T) []step {
	const sail = `{"apiVersion":"rigging.example.test/v1","kind":"Sail","metadata":{"name":"main"},"spec":{"area":40,"colour":"red"}}`
	return []step{
		{args: "apply -f -", in: testdata(t, "definition.yaml"), want: []string{"sails.rigging.example.test created"}},
		{args: "wait --for=condition=established crd/sails.rigging.example.test --timeout=60s", want: []string{"condition met"}},
		{args: "apply -f -", in: sail, want: []string{`unknown field "spec.colour"`}, fail: true},
		{args: "apply --validate=false -f -", in: sail, want: []string{"sail.rigging.example.test/main created"}},
		{args: "get sails", want: []string{"NAME +AREA\n", "main +40"}},
		{args: "get sl -o wide", want: []string{"AREA +CLOTH", "main +40 +canvas"}},
		{args: "get sail main -o jsonpath={.spec}", want: []string{`^\{"area":40,"cloth":"canvas"\}$`}},
		{args: "get sails.v1beta1.rigging.example.test main -o yaml", want: []string{"apiVersion: rigging.example.test/v1beta1"}},
		{args: "explain sail.spec.area", want: []string{"How large it is"}},
		{args: "describe sail main", want: []string{"Area: +40"}},
		{args: `patch sail main --type=merge -p {"spec":{"area":0}}`, want: []string{"should be greater than or equal to 1"}, fail: true},
		{args: `patch sail main --type=merge -p {"spec":{"area":100,"cloth":"linen"}}`, want: []string{"linen tears at 100"}, fail: true},
		{args: `patch sail main --type=merge --subresource=status -p {"status":{"reefs":2}}`, want: []string{"patched"}},
		{args: "scale sail main --replicas=1", want: []string{"scaled"}},
		{args: "apply --server-side -f -", in: strings.Replace(sail, `,"colour":"red"`, "", 1), want: []string{"serverside-applied"}},
		{args: "get --raw /apis", want: []string{`"rigging.example.test"`, `"apps"`}},
		{args: "get all", want: []string{"sail.rigging.example.test/main"}},
		{args: "delete crd sails.rigging.example.test --timeout=60s", want: []string{"deleted"}},
		{args: "get sails", want: []string{"doesn't have a resource type|could not find the requested resource"}, fail: true},
	}
}

func TestKubectlWatch(t *testing.T) {
	s := start(t, os.Geteuid())
	command := s.command(kubectlBinary, "get", "configmaps", "--watch", "-o", "name")
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { command.Process.Kill(); command.Wait() }()
	lines := bufio.NewScanner(stdout)
	next := func(want string) {
		t.Helper()
		for lines.Scan() {
			if lines.Text() == want {
				return
			}
		}
		t.Fatalf("the watch ended before %s", want)
	}
	next("configmap/kube-root-ca.crt")
	s.must("", "create", "configmap", "seen")
	next("configmap/seen")
	s.must("", "delete", "configmap", "seen")
	next("configmap/seen")
}

func TestStreams(t *testing.T) {
	asBoth(t, func(t *testing.T, uid int) {
		s := start(t, uid)
		runNode(t, s)
		s.must("", "run", "box", "--image=example.test/box:1")
		s.must("", "wait", "--for=condition=Ready", "pod/box", "--timeout=60s")
		web := listenEcho(t)
		for _, group := range []group{
			{"exec", []step{ // some versions of kubectl say beside the output that they drop the empty message with which upstream begins
				{args: "exec box -- echo hello", want: []string{"(?m)^hello$"}},
				{args: "exec -i box -- cat", in: "through\n", want: []string{"(?m)^through$"}},
				{args: "exec box -- sh -c 'echo bad >&2; exit 7'", want: []string{"bad", "exit code 7"}, fail: true},
				{args: "exec deploy/none -- true", want: []string{"not found"}, fail: true},
			}},
			{"attach", []step{
				{args: "attach -i box", in: "typed\n", want: []string{"typed"}},
			}},
			{"logs", []step{
				{args: "logs box", want: []string{"^one\ntwo\nthree\n$"}},
				{args: "logs box --tail=1", want: []string{"^three\n$"}},
				{args: "logs -f box", want: []string{"three\nlast\n$"}},
			}},
		} {
			t.Run(group.name, func(t *testing.T) {
				for _, st := range group.steps {
					st.run(t, s)
				}
			})
		}
		t.Run("cp", func(t *testing.T) { copies(t, s) })
		t.Run("port-forward", func(t *testing.T) { forwards(t, s, web) })
	})
}

func copies(t *testing.T, s *server) {
	if err := os.WriteFile(s.path("there"), []byte("contents\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	name := s.path("copied") // the node of the test has the host's files
	step{args: "cp there box:" + name}.run(t, s)
	if got, err := os.ReadFile(name); err != nil || string(got) != "contents\n" {
		t.Errorf("copied to the pod: %q, %v", got, err)
	}
	step{args: "cp box:" + name + " back"}.run(t, s)
	if got, err := os.ReadFile(s.path("back")); err != nil || string(got) != "contents\n" {
		t.Errorf("copied from the pod: %q, %v", got, err)
	}
}

// listenEcho serves a page on a port of the host, and returns the port.
func listenEcho(t *testing.T) int {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	web := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "forwarded") })}
	go web.Serve(listener)
	t.Cleanup(func() { web.Close() })
	return listener.Addr().(*net.TCPAddr).Port
}

func forwards(t *testing.T, s *server, port int) {
	command := s.command(kubectlBinary, "port-forward", "pod/box", fmt.Sprintf(":%d", port))
	stdout, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { command.Process.Kill(); command.Wait() }()
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	address := regexp.MustCompile(`127\.0\.0\.1:\d+`).FindString(line)
	client := &http.Client{Timeout: time.Minute, Transport: &http.Transport{DisableKeepAlives: true}}
	for range 3 {
		if status, body := get(t, client, "http://"+address); status != 200 || body != "forwarded" {
			t.Errorf("through the forwarded port: %d %q", status, body)
		}
	}
}
