# Fine and Gray by cmprsk (crr) and by survival (finegray, coxph) on simulated rows, without and with heavy ties,
# censoring in groups, delayed entry, case weights, clusters. Rscript duration_fine_gray.R writes duration_fine_gray.json.
library(survival); library(cmprsk); library(jsonlite)
set.seed(3); n <- 200
x1 <- rnorm(n); x2 <- rbinom(n, 1, .5)
t1 <- rexp(n, .05 * exp(.5 * x1 - .3 * x2)); t2 <- rexp(n, .04 * exp(-.2 * x1)); c <- runif(n, 2, 30)
t <- round(pmin(t1, t2, c), 6); s <- ifelse(c <= pmin(t1, t2), 0, ifelse(t1 < t2, 1, 2))
g <- rep(1:2, length.out = n); k <- rep(1:40, each = 5); w <- rep(c(1, 0.5, 2, 1.5), length.out = n)
e <- ifelse(seq_len(n) %% 3 == 0, round(t * ((seq_len(n) * 37) %% 100) / 100, 6), 0)
rows <- data.frame(id = seq_len(n), t, s, x1 = round(x1, 8), x2, g, k, w, e)
months <- rows; months$t <- ceiling(rows$t / 3); months$e <- floor(rows$e / 3)
new <- data.frame(x1 = c(0, 1), x2 = c(1, 0))

by_cmprsk <- function(d, ...) {
  f <- crr(d$t, d$s, as.matrix(d[c("x1", "x2")]), failcode = 1, cencode = 0, gtol = 1e-13, maxiter = 100, ...)
  p <- predict(f, as.matrix(new)); p <- p[c(5, nrow(p)), ]
  list(coef = unname(f$coef), var = unname(f$var), loglik = f$loglik, loglik_null = f$loglik.null, incidence = unname(p))
}
exactly <- coxph.control(eps = 1e-13, toler.chol = 1e-14, iter.max = 100)
by_survival <- function(d, entry = FALSE, weighted = FALSE, split = FALSE, cluster = FALSE, ties = "efron") {
  d$row <- d$id; d$cause <- factor(d$s, 0:2, c("censor", "own", "other"))
  left <- if (entry) "Surv(e, t, cause)" else "Surv(t, cause)"
  terms <- if (split) "x1 + x2 + k + row + strata(g)" else "x1 + x2 + k + row"
  args <- list(formula = as.formula(paste(left, "~", terms)), data = d, etype = "own", id = quote(id))
  long <- do.call(finegray, args)
  # by hand: finegray(weights = ) takes the weights of other rows as soon as there are strata; without them it is the same
  if (weighted) long$fgwt <- long$fgwt * d$w[long$row]
  long$group <- if (cluster) long$k else long$row
  if (split) long$g <- d$g[long$row]
  model <- if (split) Surv(fgstart, fgstop, fgstatus) ~ x1 + x2 + strata(g) else Surv(fgstart, fgstop, fgstatus) ~ x1 + x2
  f <- coxph(model, data = long, weights = fgwt, cluster = group, ties = ties, control = exactly)
  out <- list(coef = unname(coef(f)), naive = unname(f$naive.var), robust = unname(f$var), loglik = f$loglik)
  if (!split) {
    p <- survfit(f, newdata = new); at <- c(which(p$n.event > 0)[5], length(p$time))
    out$incidence <- unname(cbind(p$time[at], 1 - p$surv[at, ]))
  }
  out
}
try_all <- function(d) list(
  cmprsk = by_cmprsk(d), cmprsk_groups = by_cmprsk(d, cengroup = d$g),
  survival = by_survival(d), survival_breslow = by_survival(d, ties = "breslow"),
  survival_strata = by_survival(d, split = TRUE),
  survival_weights = by_survival(d, weighted = TRUE), survival_cluster = by_survival(d, cluster = TRUE),
  survival_entry = by_survival(d, entry = TRUE),
  survival_everything = by_survival(d, entry = TRUE, weighted = TRUE, split = TRUE, cluster = TRUE)
)
out <- list(
  provenance = paste0(R.version.string, ", cmprsk ", packageVersion("cmprsk"), ", survival ", packageVersion("survival"),
    "; rows simulated with set.seed(3), tied: months of three; script duration_fine_gray.R"),
  rows = as.list(rows[-1]), untied = try_all(rows), tied = try_all(months)
)
write(toJSON(out, digits = NA, auto_unbox = TRUE), "duration_fine_gray.json")
