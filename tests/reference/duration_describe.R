# Curves, tests and restricted means of a small register: survival, cmprsk. Writes the data and prints the numbers:
#   Rscript duration_describe.R duration_describe.csv > duration_describe.json
# The keys rossi and recid were added from a run of survival 3.5.3 and survRM2 1.0.4 on those public data sets: curves by
# survfit, tests by survdiff, restricted means by rmst2.
suppressMessages({library(survival); library(cmprsk); library(jsonlite)})
set.seed(20261)
n <- 180
id <- 1:n
group <- sample(c("a", "b", "c"), n, TRUE, c(.4, .35, .25))
stratum <- sample(c("north", "south"), n, TRUE)
office <- sample(1:15, n, TRUE)
x <- rnorm(15)[office]
rate <- .05 * exp(.4 * (group == "b") - .3 * (group == "c") + .3 * x)
time <- ceiling(rexp(n, rate))
cause <- sample(c("work", "study", "other"), n, TRUE, c(.55, .25, .2))
stop <- pmin(time, sample(6:30, n, TRUE))
event <- ifelse(time == stop, cause, "none")
start <- ifelse(runif(n) < .4, pmin(sample(1:8, n, TRUE), stop - 1), 0)
weight <- round(exp(rnorm(n, 0, .5)), 3)
d <- data.frame(id, start, stop, event, group, stratum, office, weight)
# A third of the stretches in two rows, as when a characteristic changes.
cut <- d$id %% 3 == 0 & d$stop - d$start >= 2
middle <- floor((d$start + d$stop) / 2)
before <- d[cut, ]; before$stop <- middle[cut]; before$event <- "none"
after <- d; after$start[cut] <- middle[cut]
d <- rbind(before, after)
d <- d[order(d$id, d$start), ]
write.csv(d, commandArgs(TRUE)[1], row.names = FALSE, quote = FALSE)

times <- c(2, 5, 8, 12, 17.5, 24)
d$state <- factor(d$event, c("none", "other", "study", "work"))
d$any <- as.integer(d$event != "none")
first <- tapply(d$start, d$id, min); final <- d[!duplicated(d$id, fromLast = TRUE), ]
final$start <- first[as.character(final$id)]
inflow <- final[final$start == 0, ]

single <- function(fit, times) {
  s <- summary(fit, times = times, extend = TRUE)
  list(time = s$time, n_risk = s$n.risk, survival = s$surv, std_error = s$std.err, hazard = s$cumhaz,
       hazard_error = s$std.chaz, strata = as.character(s$strata))
}
bands <- function(data, times) {
  out <- lapply(c("log", "log-log", "plain"), function(k) {
    fit <- survfit(Surv(start, stop, any) ~ 1, data = data, id = id, conf.type = k)
    s <- summary(fit, times = times, extend = TRUE)
    q <- quantile(fit, c(.1, .25, .5))
    list(low = c(s$lower), high = c(s$upper), quantile = c(q$quantile), quantile_low = c(q$lower),
         quantile_high = c(q$upper))
  })
  setNames(out, c("log", "log-log", "plain"))
}
multi <- function(fit, times) {
  s <- summary(fit, times = times, extend = TRUE)
  order <- match(c("(s0)", "other", "study", "work"), fit$states)
  list(time = s$time, share = unname(s$pstate[, order]), std_error = unname(s$std.err[, order]))
}
test <- function(fit) list(observed = unname(as.matrix(fit$obs)), expected = unname(as.matrix(fit$exp)),
                           variance = unname(fit$var), chisq = unname(fit$chisq))
robust <- function(d) {
  fit <- coxph(Surv(start, stop, any) ~ group + strata(stratum), data = d, weights = weight, ties = "breslow",
               cluster = office, iter.max = 0, init = c(0, 0))
  u <- rowsum(residuals(fit, "score") * d$weight, d$office)
  list(score = unname(colSums(u)), variance = unname(crossprod(u)))
}
gray <- function(...) {
  fit <- cuminc(...)
  list(statistic = unname(fit$Tests[, "stat"]), df = unname(fit$Tests[, "df"]), cause = rownames(fit$Tests))
}
form <- Surv(start, stop, any) ~ 1
formm <- Surv(start, stop, state) ~ 1
km <- survfit(form, data = d, id = id)
weighted <- survfit(form, data = d, id = id, weights = weight, cluster = office, influence = 3)
aj <- survfit(formm, data = d, id = id)
aj_weighted <- survfit(formm, data = d, id = id, weights = weight, cluster = office, influence = TRUE)
# The influence of a curve with several states is by person, a derivative still to be multiplied by the weight, with the
# moment before the first time in front; its std.err has no clusters of persons.
person <- d[!duplicated(d$id), ]
person <- person[order(person$id), ]
by_id <- aj_weighted$influence.pstate * person$weight
office_of <- person$office
pick <- function(fit, t) findInterval(t, fit$time)
set.seed(7)
m <- 120
free <- data.frame(time = round(rexp(m) + 1e-4 * seq_len(m), 5), cause = sample(0:2, m, TRUE, c(.3, .4, .3)),
                   group = sample(1:3, m, TRUE), stratum = sample(1:2, m, TRUE))
out <- list(
  provenance = paste("R", getRversion(), "survival", packageVersion("survival"), "cmprsk",
                     packageVersion("cmprsk"), "by duration_describe.R"),
  times = times,
  km = single(km, times),
  km_robust = single(survfit(form, data = d, id = id, robust = TRUE), times),
  km_weighted = single(weighted, times),
  km_weighted_influence = unname(weighted$influence.surv[, pick(weighted, times)]),
  km_group = single(survfit(Surv(start, stop, any) ~ group, data = final), times),
  km_from = single(survfit(form, data = d, id = id, start.time = 4.5), times[-1]),
  km_bands = bands(d, times),
  aj = multi(aj, times),
  aj_weighted = multi(aj_weighted, times),
  aj_inflow = multi(survfit(Surv(stop, state) ~ 1, data = inflow), times),
  aj_bands = lapply(c(log = "log", "log-log" = "log-log", plain = "plain"), function(k) {
    fit <- survfit(formm, data = d, id = id, conf.type = k)
    s <- summary(fit, times = times)
    j <- match("work", fit$states)
    list(low = unname(s$lower[, j]), high = unname(s$upper[, j]))
  }),
  rmst = {
    s <- summary(survfit(form, data = d, id = id), rmean = 24)$table
    list(until = 24, mean = unname(s["rmean"]), std_error = unname(s["se(rmean)"]))
  },
  months_lost = {
    s <- summary(survfit(Surv(stop, state) ~ 1, data = inflow, influence = TRUE), rmean = 24)$table
    list(until = 24, states = rownames(s), mean = unname(s[, "rmean"]), std_error = unname(s[, "se(rmean)"]))
  },
  months_lost_weighted = {
    s <- summary(aj_weighted, rmean = 24)$table
    k <- which(aj_weighted$time < 24)
    wide <- diff(c(aj_weighted$time[k], 24))
    area <- sapply(seq_along(aj_weighted$states), function(j) by_id[, k + 1, j] %*% wide)
    list(until = 24, states = rownames(s), mean = unname(s[, "rmean"]), std_error = sqrt(colSums(area^2)),
         std_error_cluster = sqrt(colSums(rowsum(area, office_of)^2)), std_error_table = unname(s[, "se(rmean)"]))
  },
  aj_weighted_cluster = {
    at <- pick(aj_weighted, times) + 1
    order <- match(c("(s0)", "other", "study", "work"), aj_weighted$states)
    list(std_error = sapply(order, function(j) sqrt(colSums(rowsum(by_id[, at, j], office_of)^2))))
  },
  logrank = test(survdiff(Surv(stop, any) ~ group, data = inflow)),
  logrank_rho = test(survdiff(Surv(stop, any) ~ group, data = inflow, rho = 1)),
  logrank_half = test(survdiff(Surv(stop, any) ~ group, data = inflow, rho = .5)),
  logrank_strata = test(survdiff(Surv(stop, any) ~ group + strata(stratum), data = inflow)),
  logrank_strata_rho = test(survdiff(Surv(stop, any) ~ group + strata(stratum), data = inflow, rho = 1)),
  logrank_weighted = robust(d),
  gray = gray(inflow$stop, inflow$event, inflow$group, cencode = "none"),
  gray_rho = gray(inflow$stop, inflow$event, inflow$group, cencode = "none", rho = 1),
  gray_strata = gray(inflow$stop, inflow$event, inflow$group, inflow$stratum, cencode = "none"),
  gray_strata_rho = gray(inflow$stop, inflow$event, inflow$group, inflow$stratum, cencode = "none", rho = .5),
  gray_two = { p <- inflow[inflow$group != "c", ]; gray(p$stop, p$event, p$group, cencode = "none") },
  free = free,
  gray_free = gray(free$time, free$cause, free$group),
  gray_free_rho = gray(free$time, free$cause, free$group, rho = 1),
  gray_free_strata = gray(free$time, free$cause, free$group, free$stratum)
)
cat(toJSON(out, digits = NA, auto_unbox = TRUE, dataframe = "columns", null = "null", na = "null"))
