package samples

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"

	"github.com/lateen-mesh/lateen/samples/bookinfo"
	"github.com/lateen-mesh/lateen/samples/bookinfo/details"
	"github.com/lateen-mesh/lateen/samples/bookinfo/productpage"
	"github.com/lateen-mesh/lateen/samples/bookinfo/ratings"
	"github.com/lateen-mesh/lateen/samples/bookinfo/reviews"
)

// bookshop are the settings of Bookinfo's services. What a manifest says in the
// environment is the default.
type bookshop struct{ details, reviews, ratings, stars, books string }

// bookHeaders is the order in which people know the headers of Bookinfo's answers.
var bookHeaders = []string{"Content-Type", "Content-Length", "Server", "Date"}

func productpageFlags(c *call) {
	c.endpoints.add(c.flags)
	c.flags.StringVar(&c.books.details, "details", service("details"), "`URL` of details; $DETAILS_HOSTNAME and $DETAILS_SERVICE_PORT are the default")
	c.flags.StringVar(&c.books.reviews, "reviews", service("reviews"), "`URL` of reviews")
	c.flags.StringVar(&c.books.ratings, "ratings", service("ratings"), "`URL` of ratings")
}

func runProductpage(ctx context.Context, c *call) error {
	client := bookinfo.NewClient()
	defer client.CloseIdleConnections()
	c.order = bookHeaders
	return c.serve(ctx, productpage.New(productpage.Options{
		Details: c.books.details, Reviews: c.books.reviews, Ratings: c.books.ratings, Client: client,
		Failed: c.failed("productpage"),
	}), c.say("productpage"))
}

func detailsFlags(c *call) {
	c.endpoints.add(c.flags)
	books := ""
	if asked, _ := strconv.ParseBool(os.Getenv("ENABLE_EXTERNAL_BOOK_SERVICE")); asked {
		books = "https://www.googleapis.com"
		if plain, _ := strconv.ParseBool(os.Getenv("DO_NOT_ENCRYPT")); plain {
			books = "http://www.googleapis.com"
		}
	}
	c.flags.StringVar(&c.books.books, "books", books, "`URL` of a book service to ask; $ENABLE_EXTERNAL_BOOK_SERVICE and $DO_NOT_ENCRYPT say whether it is Google's, and how")
}

func runDetails(ctx context.Context, c *call) error {
	c.order = bookHeaders
	if c.books.books == "" {
		return c.serve(ctx, details.New(), c.say("details"))
	}
	client := bookinfo.NewClient()
	defer client.CloseIdleConnections()
	return c.serve(ctx, details.NewAsking(bookinfo.Peer{
		URL: c.books.books, Within: details.Patience, Client: client, Failed: c.failed("details"),
	}), c.say("details"))
}

func runRatings(ctx context.Context, c *call) error {
	c.order = bookHeaders
	return c.serve(ctx, ratings.New(), c.say("ratings"))
}

func reviewsFlags(c *call) {
	c.endpoints.add(c.flags)
	stars := "none"
	if asked, _ := strconv.ParseBool(os.Getenv("ENABLE_RATINGS")); asked {
		stars = cmp.Or(os.Getenv("STAR_COLOR"), "black")
	}
	c.flags.StringVar(&c.books.stars, "stars", stars, "`colour` of the stars, or none; $STAR_COLOR is the default where $ENABLE_RATINGS is true")
	c.flags.StringVar(&c.books.ratings, "ratings", service("ratings"), "`URL` of ratings")
}

func runReviews(ctx context.Context, c *call) error {
	switch c.books.stars {
	case "none":
		c.books.stars = ""
	case "black", "red":
	default:
		return &Error{Err: fmt.Errorf("stars of the colour %q", c.books.stars), Hint: "say --stars none, black or red", Usage: true}
	}
	client := bookinfo.NewClient()
	defer client.CloseIdleConnections()
	pod, err := os.Hostname()
	if err != nil {
		return errors.New("this machine has no name")
	}
	c.order = bookHeaders
	return c.serve(ctx, reviews.New(reviews.Options{
		Stars: c.books.stars, Pod: pod, Cluster: cmp.Or(os.Getenv("CLUSTER_NAME"), "null"),
		Ratings: bookinfo.Peer{URL: c.books.ratings, Within: reviews.Patience(c.books.stars), Client: client, Failed: c.failed("reviews")},
	}), c.say("reviews"))
}

// failed tells why a service has no answer of another.
func (c *call) failed(name string) func(error) {
	return func(err error) { c.say(name)(err.Error()) }
}

// service is the URL of a service as the environment names it.
func service(name string) string {
	upper := strings.ToUpper(name)
	host := cmp.Or(os.Getenv(upper+"_HOSTNAME"), name)
	if domain := os.Getenv("SERVICES_DOMAIN"); domain != "" {
		host += "." + domain
	}
	return "http://" + net.JoinHostPort(host, cmp.Or(os.Getenv(upper+"_SERVICE_PORT"), bookinfo.Port))
}
