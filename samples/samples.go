// Package samples runs small applications that examples of service meshes need:
// stand-ins for public sites, and the services that people try a mesh with.
//
//	httpbin      what came, and answers to order: stand-in for httpbin.org and its images
//	site         a page with a title, a stand-in for a public web site
//	helloworld   which version and instance answered
//	tcp-echo     lines come back with a word before them
//	sleep        nothing, as the first process of a container
//	ext-authz    who may pass, for proxies that ask: by HTTP and by gRPC
//	productpage, details, reviews, ratings   the bookshop Bookinfo, a service each
//
// The same applications are `lateen sample NAME` and the program lateen-sample,
// which containers run: it is small, needs no other file and starts at once.
package samples

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strings"

	"github.com/lateen-mesh/lateen/samples/extauthz"
	"github.com/lateen-mesh/lateen/samples/helloworld"
	"github.com/lateen-mesh/lateen/samples/httpbin"
	"github.com/lateen-mesh/lateen/samples/site"
	"github.com/lateen-mesh/lateen/samples/sleep"
	tcpecho "github.com/lateen-mesh/lateen/samples/tcp-echo"
)

// An Error is a failure and what the user can do about it.
type Error struct {
	Err   error
	Hint  string // "" when there is none
	Usage bool   // the command line is wrong
}

// Error returns the text of Err.
func (e *Error) Error() string { return e.Err.Error() }

// Unwrap returns Err.
func (e *Error) Unwrap() error { return e.Err }

// A Command is one application.
type Command struct {
	Name  string
	Short string // one line of help
	args  string // after the flags
	run   func(ctx context.Context, c *call) error
	flags func(*call)
}

// Commands are all applications.
func Commands() []Command {
	return []Command{
		{Name: "httpbin", Short: "A stand-in for httpbin.org: /ip /headers /get /status/N /delay/S /anything …", run: runHTTPBin, flags: httpbinFlags},
		{Name: "site", Short: "A page with a title, a stand-in for a public web site", run: runSite, flags: siteFlags},
		{Name: "helloworld", Short: "Which version and instance answers: /hello /health", run: runHelloWorld, flags: helloWorldFlags},
		{Name: "ext-authz", Short: "Lets requests with \"x-ext-authz: allow\" pass, for proxies that ask by HTTP or gRPC", run: runExtAuthz, flags: extAuthzFlags},
		{Name: "tcp-echo", Short: "Lines come back with PREFIX before them", args: "PORT[,PORT…] PREFIX", run: runTCPEcho},
		{Name: "productpage", Short: "Bookinfo's page: /productpage /login /logout /api/v1/products", run: runProductpage, flags: productpageFlags},
		{Name: "details", Short: "Bookinfo's books: /details/0", run: runDetails, flags: detailsFlags},
		{Name: "reviews", Short: "Bookinfo's readers, without stars (v1) or with them (v2, v3): /reviews/0", run: runReviews, flags: reviewsFlags},
		{Name: "ratings", Short: "Bookinfo's stars: /ratings/0", run: runRatings, flags: serveFlags},
		{Name: "sleep", Short: "Nothing, for a time or until it is ended", args: "infinity|NUMBER[smhd]…", run: runSleep},
	}
}

// A call is one run of a command.
type call struct {
	endpoints
	flags   *flag.FlagSet
	httpbin struct{ golang, image, balanced bool }
	title   string
	hello   struct{ version, instance string }
	books   bookshop
	account string
	out     io.Writer
}

// Run runs the application until ctx ends or it fails; args are those after its
// name. What it has to tell goes to out, a line each.
func (c Command) Run(ctx context.Context, args []string, out io.Writer) error {
	run := &call{flags: flag.NewFlagSet(c.Name, flag.ContinueOnError), out: out}
	run.flags.SetOutput(io.Discard)
	if c.flags != nil {
		c.flags(run)
	}
	switch err := run.flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintf(out, "%s\n\nUsage: %s\n", c.Short, strings.TrimSpace(c.Name+" [flags] "+c.args))
		run.flags.SetOutput(out)
		run.flags.PrintDefaults()
		return nil
	case err != nil:
		return &Error{Err: err, Hint: "its flags are shown by --help", Usage: true}
	case c.args == "" && run.flags.NArg() > 0:
		return &Error{Err: fmt.Errorf("unknown argument %q", run.flags.Arg(0)), Hint: "its flags are shown by --help", Usage: true}
	}
	return c.run(ctx, run)
}

func serveFlags(c *call) { c.endpoints.add(c.flags) }

func httpbinFlags(c *call) {
	c.endpoints.add(c.flags)
	c.flags.BoolVar(&c.httpbin.balanced, "balancer", false, "add X-Amzn-Trace-Id to requests, as the load balancer of httpbin.org")
	c.flags.BoolVar(&c.httpbin.image, "image", false, "answer with headers in the order of its image, not of httpbin.org")
	c.flags.BoolVar(&c.httpbin.golang, "go", false, "answer in the form of go-httpbin: headers and arguments are lists")
}

func runHTTPBin(ctx context.Context, c *call) error {
	if c.httpbin.golang {
		return c.serve(ctx, httpbin.NewGo(), c.say("httpbin"))
	}
	c.order = []string{"Date", "Content-Type", "Content-Length", "Connection", "Server", "Access-Control-Allow-Origin"}
	if c.httpbin.image {
		c.order = []string{"Server", "Date", "Connection", "Content-Type", "Content-Length", "Access-Control-Allow-Origin"}
	}
	if c.httpbin.balanced {
		return c.serve(ctx, httpbin.NewSite(), c.say("httpbin"))
	}
	return c.serve(ctx, httpbin.New(), c.say("httpbin"))
}

func siteFlags(c *call) {
	c.endpoints.add(c.flags)
	c.flags.StringVar(&c.title, "title", "Sample", "title of the page")
}

func runSite(ctx context.Context, c *call) error {
	return c.serve(ctx, site.New(c.title), c.say("site"))
}

func helloWorldFlags(c *call) {
	c.endpoints.add(c.flags)
	version := os.Getenv("SERVICE_VERSION")
	if version == "" {
		version = "v1"
	}
	host, _ := os.Hostname()
	c.flags.StringVar(&c.hello.version, "version", version, "the version that it says; $SERVICE_VERSION is the default")
	c.flags.StringVar(&c.hello.instance, "instance", host, "the instance that it says")
}

func runHelloWorld(ctx context.Context, c *call) error {
	return c.serve(ctx, helloworld.New(c.hello.version, c.hello.instance), c.say("helloworld"))
}

func extAuthzFlags(c *call) {
	c.endpoints.add(c.flags)
	c.flags.StringVar(&c.account, "allow-service-account", "a", "`name` of a service account that may pass, asked by gRPC")
}

func runExtAuthz(ctx context.Context, c *call) error {
	c.clearHTTP2 = true
	return c.serve(ctx, extauthz.New(c.account, c.out), c.say("ext-authz"))
}

func (c *call) say(name string) func(string) {
	return func(line string) { fmt.Fprintln(c.out, name+": "+line) }
}

// runTCPEcho listens on all addresses at each port; the first that fails ends all.
func runTCPEcho(ctx context.Context, c *call) error {
	if c.flags.NArg() != 2 {
		return &Error{Err: errors.New("ports and prefix are missing"), Hint: "for example: tcp-echo 9000,9001 hello", Usage: true}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	failed, running := make(chan error), 0
	var first error
	for port := range strings.SplitSeq(c.flags.Arg(0), ",") {
		ln, err := listen(net.JoinHostPort("", port))
		if err != nil {
			first = err
			cancel()
			break
		}
		running++
		go func() { failed <- tcpecho.Serve(ctx, ln, c.flags.Arg(1), c.out) }()
	}
	for range running {
		if err := <-failed; err != nil && first == nil {
			first = err
		}
		cancel()
	}
	return first
}

func runSleep(ctx context.Context, c *call) error {
	d, err := sleep.Parse(c.flags.Args())
	if err != nil {
		return &Error{Err: err, Hint: "for example: sleep infinity", Usage: true}
	}
	sleep.For(ctx, d)
	return nil
}
