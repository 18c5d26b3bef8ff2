# Gamma frailty by other roads, base R and jsonlite. Rscript duration_hazards.R duration_hazards.json
# repeated: numbers of events with a constant rate are negative binomial (dnbinom, size 1 / v), maximised by nlm().
# months: spells by month, the likelihood integrated by integrate() at three points.
library(jsonlite)
file <- commandArgs(TRUE)[1]
all <- fromJSON(file); d <- as.data.frame(all$data$repeated); names(d) <- c("time", "events", "x")
count <- function(p) -sum(dnbinom(d$events, size = exp(-p[3]), mu = d$time * exp(p[1] * d$x + p[2]), log = TRUE))
g <- nlm(count, c(0.5, -2.5, 0), gradtol = 1e-10, steptol = 1e-12, iterlim = 500)
g <- nlm(count, g$estimate, gradtol = 1e-12, steptol = 1e-14, iterlim = 500)
all$repeated <- list(x = g$estimate[1], intercept = g$estimate[2], variance = exp(g$estimate[3]), loglik = -g$minimum)
s <- as.data.frame(all$data$months); names(s) <- c("person", "stop", "event", "x")
value <- function(p) {
  v <- exp(p[4]); total <- 0
  for (who in split(s, s$person)) {
    h <- exp(p[1] * who$x + p[2] * outer(rep(1, nrow(who)), 0:11 >= 4) + p[3])
    h <- matrix(h, nrow(who))
    lived <- sum(sapply(seq_len(nrow(who)), function(i) sum(h[i, seq_len(who$stop[i] - who$event[i])])))
    last <- h[cbind(seq_len(nrow(who)), who$stop)][who$event == 1]
    f <- function(z) { out <- exp(-z * lived); for (one in last) out <- out * -expm1(-z * one); out }
    y <- function(u) f(exp(u)) * exp(dgamma(exp(u), 1 / v, scale = v, log = TRUE) + u)
    total <- total + log((integrate(y, -100, -5, rel.tol = 1e-10)$value + integrate(y, -5, 5, rel.tol = 1e-10)$value))
  }
  -total
}
points <- rbind(c(0.48, -0.42, -2.07, 0.79), c(0.2, 0.1, -2.5, 0.3), c(0.6, -0.6, -1.8, 2))
all$months <- list(points = points, loglik = apply(points, 1, function(p) -value(c(p[1:3], log(p[4])))))
all$provenance <- "R 4.2.2; duration_hazards.R on data drawn with numpy's default_rng(20260101)"
write(toJSON(all, digits = 15, auto_unbox = TRUE), file)
