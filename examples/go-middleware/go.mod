module simple-oauth2/examples/go-middleware

go 1.26.0
