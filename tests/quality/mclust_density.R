# Rscript mclust_density.R FOLDER: the automatic mixture of mclust for FOLDER/fit.csv, and its log
# density of each row of FOLDER/held_out.csv in FOLDER/density.csv. Prints family, number of
# components and the smallest standard deviation of any of them in any direction.
suppressPackageStartupMessages(library(mclust))
options(warn = -1)
set.seed(0)
folder <- commandArgs(trailingOnly = TRUE)[1]
x <- as.matrix(read.csv(file.path(folder, "fit.csv"), header = FALSE))
y <- as.matrix(read.csv(file.path(folder, "held_out.csv"), header = FALSE))
begun <- list(subset = sample(nrow(x), min(nrow(x), 1500)))
fit <- Mclust(x, G = 1:12, verbose = FALSE, initialization = begun)
density <- dens(y, modelName = fit$modelName, parameters = fit$parameters, logarithm = TRUE)
write.table(density, file.path(folder, "density.csv"), row.names = FALSE, col.names = FALSE)
least <- min(apply(fit$parameters$variance$sigma, 3, function(s) min(eigen(s)$values)))
cat(fit$modelName, fit$G, sqrt(least), sep = ",")
